# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocations of the host under test that fail on demand; needs the capability "fault_injection"."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.guest.errors import RemoteError
from harness.guest.kexec import UPDATE_SECONDS, go

if TYPE_CHECKING:
    from harness.guest.session import Session


@dataclass(frozen=True, slots=True)
class Attempt:
    """An operation during which one allocation was to fail. hit: whether it came to that.

    allocations: how many there were up to then, or in all.
    errno: what the operation ended with, 0 where it succeeded, which it may in spite of a failed allocation.
    result: what it returned then.
    """

    hit: bool
    allocations: int
    errno: int
    result: Any = None


class Faults:
    """Fault injection in one boot; its switches are set when this is made, and start anew after a kexec."""

    def __init__(self, session: Session) -> None:
        self._session = session
        session.call("faults.prepare")

    def call(self, nth: int, operation: str, **arguments: Any) -> Attempt:
        """Perform an operation of the agent, whose n-th allocation (from 1) fails."""
        result, errno = None, 0
        try:
            result = self._session.call("faults.call", function=operation, nth=nth, **arguments)
        except RemoteError as error:
            errno = error.errno
        return self._attempt(nth, errno, result)

    def reboot(self, nth: int) -> Session | Attempt:
        """reboot(KEXEC), whose n-th allocation fails: the next session, or how it was refused.

        Allocations after the point of no return count as well, and their failure must not be noticed.
        """
        arguments = {"function": "kexec.reboot", "nth": nth}
        deadline = self._session.deadline(UPDATE_SECONDS, "reboot with a failing allocation")
        try:
            return go(self._session, deadline, time.monotonic(), "faults.call", arguments)
        except RemoteError as error:
            return self._attempt(nth, error.errno)

    def fail_below(self, function: str, times: int, *, kernel: bool = True) -> None:
        """The next so many slab allocations in a function of the kernel fail; 0 ends that.

        kernel: those of the kernel's own threads, else those of the agent's.
        """
        self._session.call("faults.fail_below", function=function, times=times, kernel=kernel)

    @property
    def failures_left(self) -> int:
        return int(self._session.call("faults.failures_left"))

    def _attempt(self, nth: int, errno: int, result: Any = None) -> Attempt:
        left = int(self._session.call("faults.left"))
        return Attempt(left == 0, nth - left, errno, result)
