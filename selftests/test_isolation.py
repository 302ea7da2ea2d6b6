# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that start from one snapshot share nothing else.

At stake: all other verdicts. Every scenario's host goes on from the memory of the same boot; what one of them
does to it must never be there for the next, or a failure would be somebody else's. Each of the scenarios here
finds no trace of the others and leaves all traces that it can, whichever comes first, in whichever process.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.case import MiB
from harness.guest.errors import RemoteError, raises_errno
from harness.guest.session import Session
from selftests.vms import make_guest

SESSION, MARK, HANDLES = "dirt", "luh: dirt", 200
O_DIRECTORY = 0o200000


@dataclass(frozen=True, slots=True)
class Trace:
    """Something that can be left on a host, and seen there."""

    name: str
    leave: Callable[[Session], object]
    seen: Callable[[Session], bool]


def setting(path: str, value: str) -> Trace:
    """A value of /proc/sys or /sys that no host has by itself."""

    def seen(host: Session) -> bool:
        return host.files.text(path).split() == [value]

    return Trace(path, lambda host: host.files.put_text(path, value), seen)


def folder(path: str) -> Trace:
    def seen(host: Session) -> bool:
        try:
            host.files.open(path, O_DIRECTORY).close()
        except RemoteError as error:
            assert error.errno == errno.ENOENT
            return False
        return True

    return Trace(path, lambda host: host.files.mkdir(path), seen)


def session_is_there(host: Session) -> bool:
    """Whether LUO has a session of that name: it takes each name once."""
    try:
        host.liveupdate.create_session(SESSION).close()
    except RemoteError as error:
        assert error.errno == errno.EEXIST
        return True
    return False


def leave_guest(host: Session) -> None:
    """A guest with memory that is neither zero nor given back."""
    make_guest(host).memory.fill(seed=1, length=4 * MiB)


def leave_handles(host: Session) -> None:
    for _ in range(HANDLES):
        host.files.eventfd()


TRACES = (
    setting("/proc/sys/kernel/hostname", "dirt"),
    setting("/proc/sys/kernel/panic", "77"),
    setting("/proc/sys/vm/swappiness", "7"),
    setting("/proc/sys/vm/overcommit_memory", "1"),
    setting("/sys/block/vda/queue/read_ahead_kb", "4"),
    # TAINT_USER, Documentation/admin-guide/tainted-kernels.rst
    setting("/proc/sys/kernel/tainted", "64"),
    *map(folder, ("/tmp/dirt", "/run/dirt", "/dev/shm/dirt")),
    Trace(
        "a line in the kernel's log",
        lambda host: host.files.put_text("/dev/kmsg", f"<6>{MARK}\n"),
        lambda host: MARK in host.kernel_log(),
    ),
    Trace("a kernel that is loaded", lambda host: host.kexec.load(), lambda host: host.kexec.loaded),
    Trace("a session", lambda host: host.liveupdate.create_session(SESSION), session_is_there),
    Trace("the agent's handles", leave_handles, lambda host: host.files.eventfd().handle > HANDLES),
)


@pytest.mark.needs("preserve_guest_memfd")
@pytest.mark.parametrize("turn", ["first", "second", "third"])
def test_nothing_is_left_of_another_scenario(host: Session, turn: str) -> None:
    """A host has no trace of others; that each trace would be seen is shown by leaving it."""
    assert [trace.name for trace in TRACES if trace.seen(host)] == []
    leave_guest(host)
    for trace in TRACES:
        trace.leave(host)
    assert [trace.name for trace in TRACES if not trace.seen(host)] == []
    # Nor can it be on the disk, which all hosts share.
    disk = host.files.open("/dev/vda")
    with raises_errno(errno.EPERM, errno.EROFS):
        host.call("files.write", file=disk, data=b"dirt")
