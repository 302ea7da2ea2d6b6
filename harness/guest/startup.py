# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time from a kernel's first line to its agent's hello goes, on the host's monotonic clock. Pure.

The console tells of the time before the kernel's own clock runs, by when the host read each line. After that
the kernel's log does, which has more than the console is given (`initcall_debug` writes 2 lines for each
initcall, init/main.c): its clock is put on the host's by a line that the agent had the kernel write. What
comes after init is on the agent's clock, put on the host's as in timeline.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.case import Span
from harness.guest.timeline import BANNER, LINE_SECONDS, Clock, Seen

CALLING = re.compile(r"calling +(\S+?)\+0x\S+ @ \d+")
RETURNED = re.compile(r"initcall (\S+?)\+0x\S+ returned -?\d+ after \d+ usecs")
RUN_INIT = re.compile(r"Run \S+ as init process")
# SeaBIOS's last word before it starts what came with -kernel; /proc's clock ticks.
HANDED_OVER, TICK_SECONDS = "Booting from ROM", 0.01


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the kernel's log. at: seconds on the kernel's own clock."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Initcall:
    """A function that the kernel ran to start something; at: when it was called, on the kernel's clock."""

    name: str
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What is known of one start of a kernel.

    lines: of the console, from the moment on that is looked at. log: the kernel's; log_clock puts it on the
    host's. process, python: when the agent's process began, and when it ran Python of its own, on the agent's
    clock; agent_clock puts them on the host's. hello: when the agent's first word had come.
    """

    lines: tuple[Seen, ...]
    log: tuple[Record, ...]
    log_clock: Clock
    process: float
    python: float
    agent_clock: Clock
    hello: float


def steady(log: Sequence[Record]) -> tuple[Record, ...]:
    """The records from where on the kernel's clock only goes forward: it starts anew with a known TSC."""
    back = [number for number in range(1, len(log)) if log[number].at < log[number - 1].at]
    return tuple(log[back[-1] if back else 0 :])


def initcalls(log: Sequence[Record]) -> tuple[Initcall, ...]:
    """The initcalls that have returned, in the order in which they were called.

    Their own figures are of no use until the TSC is the clock source, as jiffies are until then.
    """
    called: dict[str, float] = {}
    found: list[Initcall] = []
    for record in log:
        if begun := CALLING.match(record.text):
            called[begun[1]] = record.at
        elif (ended := RETURNED.match(record.text)) and ended[1] in called:
            at = called.pop(ended[1])
            found.append(Initcall(ended[1], at, record.at - at))
    return tuple(sorted(found, key=lambda one: one.at))


def spans(begun: Sequence[Span], seen: Witnesses) -> tuple[Span, ...]:
    """The steps up to the agent's hello, without a gap: each ends where the next begins.

    begun: the steps before the kernel's first line, whose lengths are taken from here.
    """
    steps = [*begun, *_kernel(seen), *_userspace(seen)]
    # A moment that is known less exactly than the one before it cannot be before that one.
    starts: list[float] = []
    for step in steps:
        starts.append(max(step.start, starts[-1] if starts else step.start))
    ends = [*starts[1:], max(seen.hello, starts[-1])]
    return tuple(
        replace(step, start=start, seconds=end - start)
        for step, start, end in zip(steps, starts, ends, strict=True)
    )


def _kernel(seen: Witnesses) -> Iterator[Span]:
    banner = next((line.at for line in seen.lines if BANNER in line.text), None)
    if banner is not None:
        yield Span("early kernel", banner, 0.0, LINE_SECONDS, "the host reads the kernel's first line")
    log = steady(seen.log)
    offset, within = seen.log_clock.offset, seen.log_clock.within
    if calls := initcalls(log):
        known = "the kernel's clock, at the first initcall in its log"
        yield Span("initcalls", calls[0].at + offset, 0.0, within, known)
        end = max(call.at + call.seconds for call in calls)
        known = "the kernel's clock, when the last initcall has returned"
        yield Span("root file system", end + offset, 0.0, within, known)
    for record in log:
        if RUN_INIT.match(record.text):
            yield Span("init", record.at + offset, 0.0, within, "the kernel's clock, as it runs init")
            break


def _userspace(seen: Witnesses) -> Iterator[Span]:
    offset, within = seen.agent_clock.offset, seen.agent_clock.within
    known = "the start of the agent's process, to a clock tick"
    yield Span("agent's process", seen.process + offset, 0.0, within + TICK_SECONDS, known)
    yield Span("agent", seen.python + offset, 0.0, within, "the agent's clock, at its first line")
