# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that has ended -> findings: what its kernels said, how they died, and where in their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.case import Bench, Finding, Kernel
from harness.crash import console
from harness.crash.frames import SYMBOL
from harness.deadline import Deadline
from harness.machine.host import HostMachine
from harness.store import Store

if TYPE_CHECKING:
    from harness.kernel.lines import Reference

LOCATE_SECONDS = 60.0
_REFERENCE = re.compile(SYMBOL)
# A frame has the address that its call returns to, which can be another line's.
_FRAME = re.compile(rf"(?:^|\]|\d:)\s+(?:\? )?{SYMBOL}")

Places = dict["Reference", tuple[str, ...]]


def findings(machine: HostMachine, leaks: str = "") -> tuple[Finding, ...]:
    """All findings of a machine that is off; complete once nothing is left of it.

    leaks: what kmemleak reported when it was asked at the end (agent/leaks.py), which no console has.
    """
    lines = [(line.at, line.text) for line in machine.console]
    last = lines[-1][0] if lines else 0.0
    lines += [(last, line) for line in leaks.splitlines()]
    found = console.findings(lines, machine.ending, _dying(machine, console.read(lines)))
    return tuple(_placed(found, machine.bench))


def reported(machine: HostMachine) -> bool:
    """Whether a kernel has said anything against itself so far."""
    return bool(console.findings((line.at, line.text) for line in machine.console))


def _dying(machine: HostMachine, log: console.Log) -> str:
    """The function that the CPU was in when the machine ended."""
    if machine.ending is None or not machine.ending.address:
        return ""
    from harness.kernel import lines as sources

    kernel = _kernel(machine.bench, log.kernel + log.between)
    return str(sources.at_address(kernel, machine.ending.address) or "")


def _kernel(bench: Bench, number: int) -> Kernel:
    return bench.next_kernel if number else bench.kernel


def _placed(found: Sequence[Finding], bench: Bench) -> Iterator[Finding]:
    """The findings with files and lines, each from the kernel that it is of."""
    if not found:
        return  # as nearly always, and then nothing is imported that reads kernels
    from harness.kernel import lines as sources

    places: dict[str, Places] = {}
    deadline = Deadline.after(LOCATE_SECONDS, "the lines of a trace")
    for kernel in {bench.kernel.digest: bench.kernel, bench.next_kernel.digest: bench.next_kernel}.values():
        own = [one for one in found if _kernel(bench, one.kernel).digest == kernel.digest]
        wanted = [_culprit(one) for one in own if one.function]
        wanted += [one for finding in own for line in finding.lines for one in _references(line)]
        if wanted:
            places[kernel.digest] = sources.locate(kernel, wanted, Store.default(), deadline)
    for one in found:
        yield _with_places(one, places.get(_kernel(bench, one.kernel).digest, {}))


def _with_places(finding: Finding, places: Places) -> Finding:
    chain = places.get(_culprit(finding), ()) if finding.function else ()
    # The function's own line, rather than one of a header that is inlined there.
    place = next((place for place in chain if ".h:" not in place), "".join(chain[:1]))
    lines = tuple(_annotated(line, places) for line in finding.lines)
    return replace(finding, lines=lines, place=place or finding.place)


def _annotated(line: str, places: Places) -> str:
    known = [f"({', '.join(places[one])})" for one in _references(line) if one in places]
    return " ".join((line, *known))


def _culprit(finding: Finding) -> Reference:
    frames = (line for line in finding.lines if finding.function in line and _FRAME.search(line))
    exact = any(finding.function in line and not _FRAME.search(line) for line in finding.lines)
    return _reference(finding.function, after=not exact and next(frames, "") != "")


def _references(line: str) -> Iterator[Reference]:
    after = _FRAME.search(line) is not None
    return (_reference(text, after=after) for text in _REFERENCE.findall(line))


def _reference(text: str, *, after: bool) -> Reference:
    from harness.kernel.lines import Reference

    name, _, rest = text.partition("+")
    offset, _, size = rest.partition("/")
    return Reference(name, max(0, int(offset or "0", 16) - after), int(size or "0", 16))
