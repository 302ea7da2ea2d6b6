# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a power-on and of a live update goes, step by step: `luh bench breakdown`.

All moments are on one clock, the host's monotonic one. The host itself sees QEMU start, its monitor answer,
each line of the console (which the firmware shares in these boots), and the agent's messages: to about 2 ms.
What the kernel's log and the agent tell by clocks of their own is put on the host's through an exchange with
the agent, and can be off by half of what that exchange took; for the start of the agent's process a clock
tick of 10 ms comes on top. Each step has its own figure.

The boots are made for this purpose, with `initcall_debug`. Its lines go to the kernel's log alone, not to the
serial port, and cost the kernels some milliseconds that other boots do not take.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from harness.case import Access, Bench, Progress, Span, Update
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guest import timeline
from harness.guest.journal import Call, Journal
from harness.guest.session import Session
from harness.guest.startup import HANDED_OVER, Initcall, Record, Witnesses, initcalls, spans, steady
from harness.guest.timeline import LINE_SECONDS, STARTING, Clock, Seen
from harness.machine.arguments import command_line
from harness.machine.qemu import Machine

BOOT_SECONDS = 30.0
PARAMETERS = ("initcall_debug", "log_buf_len=1M")
MARK = "luh: a mark on the clock"
# The exchange that takes least is the one that says most.
MARKS = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A step of all runs: its length in seconds, and the most that its start can be off (within)."""

    name: str
    median: float
    least: float
    most: float
    within: float
    known: str


@dataclass(frozen=True, slots=True)
class Slow:
    """An initcall's median, in seconds."""

    name: str
    median: float


@dataclass(frozen=True, slots=True)
class Part:
    """A power-on, or a live update. total: the median of whole ones, in seconds."""

    title: str
    total: float
    steps: tuple[Step, ...]
    initcalls: tuple[Slow, ...]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """All of it, and the machine that it holds for. count: how many runs there were."""

    machine: str
    count: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one kernel."""

    steps: tuple[Span, ...]
    initcalls: tuple[Initcall, ...]


def measure(bench: Bench, count: int, slowest: int, progress: Progress) -> Breakdown:
    """Power a machine on and live-update it, `count` times.

    slowest: how many initcalls are named. Raises what a boot and a live update raise.
    """
    machine = replace(bench.machine, kernel_parameters=(*bench.machine.kernel_parameters, *PARAMETERS))
    bench = replace(bench, machine=machine, access=Access(firmware=True))
    starts: list[tuple[Start, Start]] = []
    for number in range(count):
        progress(Update("runs", f"{number + 1} of {count}", done=number / count))
        starts.append(_run(replace(bench, directory=bench.directory / f"run-{number + 1}")))
    progress(Update("runs", f"{count} done", finished=True))
    booted, updated = zip(*starts, strict=True)
    return Breakdown(
        f"{os.cpu_count()} CPUs, {bench.choice.accelerator.upper()}, Linux {bench.kernel.release}",
        count,
        (summed("power-on to agent", booted, slowest), summed("live update", updated, slowest)),
    )


def summed(title: str, starts: Sequence[Start], slowest: int) -> Part:
    """The starts of several runs as one part: only steps that each of them has, in their order."""
    first = starts[0]
    by_name = [{step.name: step for step in start.steps} for start in starts]
    common = [name for name in (step.name for step in first.steps) if all(name in one for one in by_name)]
    return Part(
        title,
        statistics.median(sum(step.seconds for step in start.steps) for start in starts),
        tuple(_step([one[name] for one in by_name]) for name in common),
        _slowest(chain.from_iterable(start.initcalls for start in starts), slowest),
    )


def _step(spans: Sequence[Span]) -> Step:
    seconds = [span.seconds for span in spans]
    return Step(
        spans[0].name,
        statistics.median(seconds),
        min(seconds),
        max(seconds),
        max(span.within for span in spans),
        spans[0].known,
    )


def _slowest(calls: Iterable[Initcall], count: int) -> tuple[Slow, ...]:
    taken: dict[str, list[float]] = {}
    for call in calls:
        taken.setdefault(call.name, []).append(call.seconds)
    found = [Slow(name, statistics.median(seconds)) for name, seconds in taken.items()]
    return tuple(sorted(found, key=lambda one: one.median, reverse=True)[:count])


def _run(bench: Bench) -> tuple[Start, Start]:
    journal = Journal()
    with Machine(bench) as machine:
        answered = time.monotonic()
        deadline = Deadline.after(BOOT_SECONDS, "the kernel's first boot", scale=bench.time_scale)
        session = Session.open(
            machine,
            deadline,
            command_line=command_line(bench),
            time_scale=bench.time_scale,
            journal=journal,
        )
        hello = time.monotonic()
        known = "the harness starts QEMU"
        begun = [Span("QEMU", machine.powered_on, 0.0, 0.0, known)]
        begun.append(Span("firmware", answered, 0.0, LINE_SECONDS, "QEMU's monitor answers"))
        begun += _handed_over(machine)
        booted = _start(machine, session, begun, machine.powered_on, hello)
        updated = _updated(machine, session)
    return booted, updated


def _handed_over(machine: Machine) -> Iterable[Span]:
    """The firmware's last word, where it says any."""
    for line in _seen(machine):
        if HANDED_OVER in line.text:
            yield Span(
                "kernel's entry", line.at, 0.0, LINE_SECONDS, "the host reads the firmware's last line"
            )


def _updated(machine: Machine, session: Session) -> Start:
    began = time.monotonic()
    following = session.live_update()
    calls = session.journal.calls
    order = next(call for call in reversed(calls) if call.operation == "kexec.reboot")
    end = order.start + order.seconds
    begun = [
        Span("kexec load", began, 0.0, 0.0, "the harness asks for it"),
        Span("freeze, shutdown", order.start, 0.0, LINE_SECONDS, "the harness orders the kexec"),
    ]
    said = [line.at for line in _seen(machine) if STARTING in line.text and order.start <= line.at <= end]
    known = "the host reads the old kernel's last line"
    begun += [Span("purgatory, decompression", at, 0.0, LINE_SECONDS, known) for at in said[:1]]
    return _start(machine, following, begun, order.start, end)


def _start(machine: Machine, session: Session, begun: Sequence[Span], since: float, hello: float) -> Start:
    """Ask the agent that has come up how it got there."""
    marks = _marked(session)
    log = tuple(Record(at, text) for at, text in session.call("host.timed_log"))
    started = session.call("host.started")
    boot = session.identity.boot_id
    agent_clock = timeline.clock([call for call in session.journal.calls if call.boot == boot])
    if agent_clock is None:
        raise InfraError("the agent does not tell when it begins with an operation")
    witnesses = Witnesses(
        lines=tuple(line for line in _seen(machine) if since <= line.at <= hello),
        log=log,
        log_clock=_log_clock(marks, log),
        process=started["process"],
        python=started["python"],
        agent_clock=agent_clock,
        hello=hello,
    )
    return Start(spans(begun, witnesses), initcalls(steady(log)))


def _marked(session: Session) -> dict[str, Call]:
    """Lines that the agent writes to the kernel's log, and the calls that did."""
    calls: dict[str, Call] = {}
    for number in range(MARKS):
        text = f"{MARK} {number}"
        session.call("files.put_text", path="/dev/kmsg", text=f"<6>{text}\n")
        calls[text] = session.journal.calls[-1]
    return calls


def _log_clock(marks: Mapping[str, Call], log: Sequence[Record]) -> Clock:
    """The clock of the kernel's log: each mark was written at some moment of its call."""
    clocks = [
        Clock(call.start + call.seconds / 2 - record.at, call.seconds / 2)
        for record in log
        if (call := marks.get(record.text))
    ]
    return min(clocks, key=lambda one: one.within)


def _seen(machine: Machine) -> list[Seen]:
    return [Seen(machine.powered_on + line.at, line.text) for line in machine.console]
