# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a live update goes: its spans on the host's monotonic clock. Pure.

Four witnesses are put on that one clock: the agent, whose own clock is mapped through requests and their
replies; the console, whose lines have the time at which the host read them; QEMU, which tells when a kernel
closes the agent's port; and the harness itself. Each span says how its ends are known, and how far off they
can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.case import LiveUpdate, Span
from harness.guest.journal import Call, Entry

# kernel/kexec_core.c, arch/x86/boot/compressed/misc.c (CONFIG_X86_VERBOSE_BOOTUP), init/version-timestamp.c
STARTING, DECOMPRESSING, BANNER = "Starting new kernel", "early console in extract_kernel", "Linux version "
PRINTK = re.compile(r"\[ *(\d+\.\d+)\]")
RUNS = ("vcpu.run", "vcpu.start", "vcpu.resume")
# What a line needs from the kernel to the host's clock on a machine that is not busy.
LINE_SECONDS = 0.002
# From when on a kernel's clock runs evenly (its TSC is calibrated by then).
STEADY_SECONDS = 2.0
# A span of more calls than this is told as one stretch.
MOST_CALLS = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of the console. at: when its first byte was read, on the monotonic clock."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Clock:
    """The agent's clock of one boot: add `offset` for the host's; `within`: by how much that can be wrong."""

    offset: float
    within: float


def updates(
    entries: Sequence[Entry], lines: Sequence[Seen], closings: Sequence[float]
) -> tuple[LiveUpdate, ...]:
    """The live updates of a journal, each with its spans.

    lines: the console's, of all boots. closings: when QEMU saw the agent's port being closed.
    """
    calls = [entry for entry in entries if isinstance(entry, Call)]
    found: list[LiveUpdate] = []
    for number, entry in enumerate(entries):
        if isinstance(entry, LiveUpdate):
            before = [call for call in entries[:number] if isinstance(call, Call)]
            order = next((call for call in reversed(before) if call.boot == entry.from_boot_id), None)
            if order:
                entry = replace(entry, spans=tuple(_spans(entry, order, calls, lines, closings)))
            found.append(entry)
    return tuple(found)


def clock(calls: Sequence[Call]) -> Clock | None:
    """The clock of a boot's agent, from the call that leaves the least room for error.

    Request and reply are taken to be equally long on their way, which is wrong by half of what the whole
    call took besides the agent's own work, at most.
    """
    answered = [call for call in calls if call.began]
    if not answered:
        return None
    best = min(answered, key=lambda call: call.seconds - call.remote_seconds)
    slack = max(0.0, best.seconds - best.remote_seconds) / 2
    return Clock(best.start + slack - best.began, slack)


def _spans(
    update: LiveUpdate,
    order: Call,
    calls: Sequence[Call],
    lines: Sequence[Seen],
    closings: Sequence[float],
) -> Iterator[Span]:
    old = [call for call in calls if call.boot == update.from_boot_id and call is not order]
    new = [call for call in calls if call.boot == update.to_boot_id]
    here, there = clock(old), clock(new)
    yield from _work("preserve", [call for call in old if call.operation == "liveupdate.preserve"], here)
    yield from _work("load", [call for call in old if call.operation == "kexec.load"][-1:], here)
    yield from _darkness(order, here, lines, closings)
    yield from _work("retrieve", [call for call in new if call.operation == "liveupdate.retrieve"], there)
    for span in _work("guest runs", [call for call in new if call.operation in RUNS][:1], there):
        known = "the agent begins to run the first vCPU; the guest's first instruction follows in this call"
        yield replace(span, seconds=0.0, known=known)


def _work(name: str, calls: Sequence[Call], mapped: Clock | None) -> Iterator[Span]:
    """What the agent did, by its own clock."""
    done = [call for call in calls if call.began and not call.errno]
    if not done or mapped is None:
        return
    spans = [(call.began + mapped.offset, call.remote_seconds) for call in done]
    known = "the agent's clock"
    if len(spans) > MOST_CALLS:
        start = spans[0][0]
        spans = [(start, spans[-1][0] + spans[-1][1] - start)]
        known = f"the agent's clock, from the first to the last of {len(done)} calls"
    for start, seconds in spans:
        yield Span(name, start, seconds, mapped.within, known)


def _darkness(
    order: Call, mapped: Clock | None, lines: Sequence[Seen], closings: Sequence[float]
) -> Iterator[Span]:
    """From reboot(KEXEC) to the next agent's first word: nobody answers, so others have to tell."""
    end = order.start + order.seconds
    travel = mapped.within if mapped else 0.0
    known = "the order, and what a request needs to reach the agent"
    begun = [Span("freeze", order.start + travel, 0.0, travel, known)]
    over = next((line.at for line in lines if line.at >= order.start and STARTING in line.text), end)
    # QEMU tells of a port once a second at most: what it held back until then came too late to say anything.
    if closed := [at for at in closings if order.start <= at <= over]:
        known = "QEMU sees the agent's port being closed, early in the shutdown of devices"
        begun.append(Span("shutdown", closed[0], 0.0, LINE_SECONDS, known))
    for text, name, known in (
        (STARTING, "purgatory", "the old kernel's last line, by its own clock and the host's"),
        (DECOMPRESSING, "decompression", "the first line of the new kernel's decompressor"),
        (BANNER, "boot", "the new kernel's first line"),
    ):
        said = [line for line in lines if order.start <= line.at <= end and text in line.text]
        if said:
            at, within = _said(said[0], [line for line in lines if line.at <= said[0].at])
            begun.append(Span(name, max(at, begun[-1].start), 0.0, within, known))
    ends = [*(span.start for span in begun[1:]), end]
    for span, until in zip(begun, ends, strict=True):
        yield replace(span, seconds=max(0.0, until - span.start))


def _said(line: Seen, before: Sequence[Seen]) -> tuple[float, float]:
    """When the kernel said a line, and how far off that can be.

    The line of this boot that took the shortest way maps the kernel's clock (CONFIG_PRINTK_TIME); how much
    longer this line took is the delay to be taken off. That clock is not steady early in a boot.
    """
    first = max((number for number, one in enumerate(before) if BANNER in one.text), default=0)
    stamps = [(one.at, float(found[1])) for one in before[first:] if (found := PRINTK.match(one.text))]
    own = PRINTK.match(line.text)
    steady = [at - stamp for at, stamp in stamps if stamp >= STEADY_SECONDS]
    if not own or not steady or float(own[1]) < STEADY_SECONDS:
        return line.at, LINE_SECONDS
    delay = line.at - float(own[1]) - min(steady)
    return line.at - delay, max(delay, LINE_SECONDS)
