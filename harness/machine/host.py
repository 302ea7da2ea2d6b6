# SPDX-License-Identifier: GPL-2.0-or-later
"""What every machine that can be the host under test has, whether QEMU makes it or somebody else has it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from harness.case import Bench, Ending, MachineSpec
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.machine.console import Console, Line
from harness.machine.terminal import Terminal


class HostMachine(ABC):
    """A machine that is the run's own inside its `with` block, however the block ends.

    It is the transport of guest/session.py: `send` and `receive` are the bytes of the agent's stream.
    Traces go to bench.directory, console.log among them.

    bench: what was asked for. powered_on: the zero of the console's lines, on the monotonic clock.
    command_line: what the kernels are told, at the boot and at the kexec. marks: named moments, seconds
    since power-on. terminal: a console for a shell, where there is one. ending: how the host died, once that
    is known.
    """

    command_line: str
    _console: Console

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.powered_on = time.monotonic()
        self.marks: list[tuple[str, float]] = []
        self.terminal: Terminal | None = None
        self.ending: Ending | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @abstractmethod
    def _start(self, stack: ExitStack) -> None:
        """Make it the run's own, and put on the stack what has to be undone."""

    @abstractmethod
    def send(self, data: bytes, deadline: Deadline) -> None:
        """Pass bytes on to the agent."""

    @abstractmethod
    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes from the agent, at least one. Raises CrashError once the host is known to be dead."""

    @abstractmethod
    def keep_memory(self) -> None:
        """Keep a dump of the host's memory beside the other traces, where that can be had from outside."""

    @property
    def console(self) -> tuple[Line, ...]:
        """The console's lines so far, of all kernels."""
        return self._console.lines

    @property
    def port_closings(self) -> tuple[float, ...]:
        """When a kernel was seen to close the agent's port, on the monotonic clock."""
        return ()

    def elapsed(self) -> float:
        """Seconds since power-on."""
        return time.monotonic() - self.powered_on

    def mark(self, name: str) -> float:
        """Name this moment, also in the console's log; returns `elapsed()`."""
        now = self.elapsed()
        self.marks.append((name, now))
        self._console.remark(name)
        return now

    def why_ended(self) -> HarnessError | None:
        """Why this machine is no use any more; None while it is."""
        return None

    def unfit(self, wanted: MachineSpec) -> str:
        """Why this machine is none for a scenario that wants such a one; "" if it is."""
        return ""
