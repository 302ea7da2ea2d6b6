# SPDX-License-Identifier: GPL-2.0-or-later
"""Other agents in the host under test: processes that can die, race, and be handed files.

A child is a session like any other, whose bytes go through the agent that started it. It has handles, an mm
and a /dev/liveupdate of its own (which is open in one process at a time), and ends with the boot.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.deadline import Deadline
from harness.errors import UsageError
from harness.guest.errors import ProcessEnded, RemoteError
from harness.guest.resources import File, Vm
from harness.guest.session import Session

START_SECONDS, END_SECONDS = 10.0, 1.0
# How long the parent is asked to wait at a time, so that its own deadlines stay far.
STEP_SECONDS = 2.0

F = TypeVar("F", bound=File)


@dataclass(frozen=True, slots=True)
class Process(File):
    """The parent's view of a child: the stream to it, and its life."""

    def kill(self, number: int) -> int:
        return int(self.session.call("process.kill", process=self, number=number))

    def wait(self, seconds: float) -> int | None:
        deadline = self.session.deadline(seconds + STEP_SECONDS, "the end of a process")
        scaled = seconds * self.session.time_scale
        status: int | None = self.session.call("process.wait", deadline, process=self, seconds=scaled)
        return status


@dataclass(frozen=True, slots=True)
class Relay:
    """The transport to a child, through its parent."""

    process: Process

    def send(self, data: bytes, deadline: Deadline) -> None:
        with _end_is_told(self.process):
            self.process.session.call("files.write", deadline, file=self.process, data=data)

    def receive(self, deadline: Deadline) -> bytes:
        while True:
            seconds = min(deadline.check(), STEP_SECONDS)
            with _end_is_told(self.process):
                data: bytes = self.process.session.call(
                    "process.receive", process=self.process, seconds=seconds
                )
            if data:
                return data


@contextmanager
def _end_is_told(process: Process) -> Iterator[None]:
    """Turns the parent's EPIPE into the child's end, and how that came."""
    try:
        yield
    except RemoteError as error:
        if error.errno != errno.EPIPE:
            raise
        raise ProcessEnded(f"the process ended: {described(process.wait(END_SECONDS))}") from error


class Child(Session):
    """Another agent. process: its life, as the parent sees it."""

    process: Process

    def take(self, file: F) -> F:
        """A descriptor of this child's for a file of another agent of the host, as by SCM_RIGHTS."""
        return take(self, file)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, and return the status as waitpid gives it."""
        status = self.process.kill(number)
        self.fail(ProcessEnded(f"the process was killed on purpose: {described(status)}"))
        return status


def spawn(parent: Session) -> Child:
    """Start an agent beside the parent's, and wait for its hello."""
    process = Process(parent, parent.call("process.spawn")["handle"])
    child = Child.open(
        Relay(process),
        parent.deadline(START_SECONDS, "the start of another agent"),
        command_line=parent.command_line,
        time_scale=parent.time_scale,
        journal=parent.journal,
    )
    child.process, child.updated = process, parent.updated
    return child


def take(receiver: Session, file: F) -> F:
    """A descriptor in the receiver for a file of another agent of the same host."""
    owner = file.session
    if owner.identity.boot_id != receiver.identity.boot_id:
        raise UsageError("the file belongs to another boot")
    made = receiver.call(
        "process.take",
        pid=owner.identity.agent_pid,
        fd=owner.call("files.number", file=file),
        kind="vm" if isinstance(file, Vm) else "file",
    )
    return replace(file, session=receiver, handle=made["handle"])


def described(status: int | None) -> str:
    """A status of waitpid in words: "killed by SIGTERM"."""
    if status is None:
        return "it hung up, and still runs"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"status {os.waitstatus_to_exitcode(status)}"
