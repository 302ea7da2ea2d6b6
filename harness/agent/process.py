# SPDX-License-Identifier: GPL-2.0-or-later
"""Other agents in the same host: processes of their own, with descriptors and an mm of their own.

One speaks through a stream socket whose other end is a Process here. What is said over it is none of this
module's business: the scenario's side speaks to the other agent as it does to this one (guest/child.py).
"""

from __future__ import annotations

import errno
import os
import sys
import time

from . import frozen
from .__main__ import WAITS_ON
from .files import File, pipe, socketpair
from .kvm import Vm
from .libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # as in vcpu.py

CHUNK = 1 << 16
POLL_SECONDS = 0.01
KINDS: dict[str, Callable[[int], File]] = {"file": File, "vm": Vm}


class Process(File):
    """A child agent, and our end of its stream. status: as waitpid gives it, None while it runs."""

    def __init__(self, fd: int, pid: int) -> None:
        super().__init__(fd)
        self.pid = pid
        self.status: int | None = None

    def close(self) -> None:
        kill(self, signal.SIGKILL)
        super().close()


def spawn() -> Process:
    """Start another agent, the way this one was started; nothing of this one's is inherited."""
    ours, theirs = socketpair()
    own = len(sys.argv) - 1
    anew = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - own], "--stream", str(WAITS_ON)]
    argv = [frozen.program] if frozen.program else anew
    redirected = [(os.POSIX_SPAWN_DUP2, theirs.fd, WAITS_ON)]
    try:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=redirected)
    finally:
        theirs.close()
    if frozen.program:
        os.write(ours.fd, b"\0")
    return Process(ours.fd, pid)


def execute(argv: list[str]) -> Process:
    """Start a program in a session of its own; what it says on stdout and stderr can be received."""
    ours, theirs = pipe()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    redirected = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((null, 0), (theirs.fd, 1), (theirs.fd, 2))]
    try:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=redirected, setsid=True)
    finally:
        theirs.close()
        os.close(null)
    return Process(ours.fd, pid)


def end(process: Process) -> None:
    """Kill a program that `execute` started, with all that has stayed in its session's first group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    kill(process, signal.SIGKILL)


def holds(process: Process, link: str) -> bool:
    """Whether the process has a file open whose link in /proc contains the text."""
    folder = f"/proc/{process.pid}/fd"
    return any(link in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))


def receive(process: Process, seconds: float) -> bytes:
    """Some bytes that the other agent said; b"" if none came in so many seconds, EPIPE where it ended."""
    import select

    poll = select.poll()
    poll.register(process.fd, select.POLLIN)
    if not poll.poll(seconds * 1000):
        return b""
    try:
        data = os.read(process.fd, CHUNK)
    except ConnectionResetError:
        data = b""
    if not data:
        raise OSError(errno.EPIPE, "the process has ended")
    return data


def kill(process: Process, number: int) -> int:
    """Send a signal, and wait for the end unless it is 0; returns the status, as waitpid gives it."""
    if process.status is None:
        os.kill(process.pid, number)
        if number:
            process.status = os.waitpid(process.pid, 0)[1]
    return process.status or 0


def wait(process: Process, seconds: float) -> int | None:
    """The status of a process that ends by itself; None if it did not within so many seconds."""
    end = time.monotonic() + seconds
    while process.status is None:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            process.status = status
        elif time.monotonic() >= end:
            return None
        else:
            time.sleep(POLL_SECONDS)
    return process.status


def take(pid: int, fd: int, kind: str = "file") -> File:
    """A descriptor of another process, as if it had been sent here with SCM_RIGHTS (pidfd_getfd(2))."""
    owner = os.pidfd_open(pid)
    try:
        return KINDS[kind](syscall("pidfd_getfd", owner, fd, 0))
    finally:
        os.close(owner)


OPERATIONS: dict[str, Callable[..., object]] = {
    "spawn": spawn,
    "execute": execute,
    "end": end,
    "holds": holds,
    "receive": receive,
    "kill": kill,
    "wait": wait,
    "take": take,
}
