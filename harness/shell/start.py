# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine for a person: booted, and gone when he leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.case import Bench
from harness.deadline import Deadline
from harness.guest.session import Session
from harness.machine.arguments import command_line
from harness.machine.console import Line
from harness.machine.qemu import Machine

BOOT_SECONDS = 30.0


@contextmanager
def booted(bench: Bench, *, follow: bool = False) -> Iterator[tuple[Machine, Session]]:
    """A machine whose first kernel has reached its agent, and that agent's session.

    follow: show the serial console's lines on stderr as they come. Raises BootError.
    """
    with Machine(bench, on_line=_show if follow else None) as machine:
        deadline = Deadline.after(BOOT_SECONDS, "the kernel's first boot", scale=bench.time_scale)
        yield (
            machine,
            Session.open(machine, deadline, command_line=command_line(bench), time_scale=bench.time_scale),
        )


def _show(line: Line) -> None:
    """From the console's thread; the carriage return is for a terminal that another one is joined with."""
    sys.stderr.write(f"\r{line.at:10.3f} | {line.text}\r\n")
    sys.stderr.flush()
