# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong in the host under test, by whose fault; and the helper for what has to go wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.errors import InfraError, KernelError, UsageError


class RemoteError(KernelError):
    """The kernel refused an operation. errno is what it said; operation is the agent's name for it."""

    def __init__(self, operation: str, number: int, *, message: str = "", detail: str = "") -> None:
        text = message or describe(number)
        super().__init__(f"{operation}: {text}", detail=detail)
        self.operation = operation
        self.errno = number


class AgentError(InfraError):
    """The agent itself failed at an operation; detail has its traceback."""


class MemoryDiffers(KernelError):
    """Memory does not hold what it should. differences: the first pages that differ; pages: how many do."""

    def __init__(self, who: str, pages: int, differences: tuple[Difference, ...]) -> None:
        more = f", and {pages - 1} more pages" if pages > 1 else ""
        super().__init__(
            f"{who}: {differences[0].line}{more}",
            detail="\n".join(difference.text for difference in differences),
        )
        self.pages = pages
        self.differences = differences


class UnexpectedResult(KernelError):
    """The kernel did something else than it had to."""


class ProcessEnded(KernelError):
    """Another agent of the host is gone. Where a scenario kills it, that is what has to be."""


class SessionUsedUp(UsageError):
    """A session, or an object of it, was used after the kexec that ended it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A page that differs. offset: of its first wrong byte, from the start of the memory.

    expected and found: the bytes from there on, as far as they are shown.
    """

    page: int
    offset: int
    expected: bytes
    found: bytes
    diagnosis: str

    @classmethod
    def of(cls, report: dict[str, Any]) -> Difference:
        """From the agent's report (agent/memory.py)."""
        return cls(
            report["page"],
            report["offset"],
            bytes.fromhex(report["expected"]),
            bytes.fromhex(report["found"]),
            report["diagnosis"],
        )

    @property
    def line(self) -> str:
        return f"page {self.page}: {self.diagnosis}"

    @property
    def text(self) -> str:
        return (
            f"{self.line}\n  first at offset {self.offset:#x}"
            f"\n    expected {self.expected.hex(' ')}\n    found    {self.found.hex(' ')}"
        )


def describe(number: int) -> str:
    """ "EPERM (Operation not permitted)" """
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def error_of(operation: str, error: dict[str, Any]) -> RemoteError | AgentError:
    """The exception for the error in a reply."""
    trace = "\n".join([*error.get("traceback", ()), f"{error['name']}: {error['message']}"])
    if error.get("errno"):
        return RemoteError(operation, error["errno"], message=_message(error), detail=trace)
    return AgentError(f"the agent failed at {operation}: {error['name']}: {error['message']}", detail=trace)


def _message(error: dict[str, Any]) -> str:
    """The errno's name and what the agent added to it ("[Errno 14] page 3 cannot be touched")."""
    _, _, said = error["message"].rpartition("] ")
    return f"{error['name']} ({said})"


@contextmanager
def raises_errno(*numbers: int) -> Iterator[None]:
    """The block has to fail with one of these errnos; raises UnexpectedResult where it does not."""
    wanted = " or ".join(describe(number) for number in numbers)
    try:
        yield
    except RemoteError as error:
        if error.errno not in numbers:
            raise UnexpectedResult(
                f"{error.message}, where {wanted} was to be", detail=error.detail
            ) from error
    else:
        raise UnexpectedResult(f"nothing failed, where {wanted} was to be")
