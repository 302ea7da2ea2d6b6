# SPDX-License-Identifier: GPL-2.0-or-later
"""What a live update of a guest_memfd costs, against a memfd with as many pages: `luh bench preserve`.

selftests/measure_preserve.py does the measuring, in hosts that an Attempt boots; here its figures become
medians, ratios and goals. A memfd goes through the mainline kernel's own handler, in the same boot of the
same kernel, so that a ratio says something where a time under emulation does not.

The figures, all of them times of the system calls alone:
    preserve     PRESERVE_FD of the file
    unpreserve   the close of a session that has this file only
    retrieve     RETRIEVE_FD of the file (the VM's own is in `guest`)
    touch        writing to each page right after that, through a mapping: restored pages may come that late
    guest        from the first RETRIEVE_FD to the guest's first load from the restored memory: retrieving VM
                 and memory, a memslot, a vCPU, KVM_RUN. Against memfd's retrieve, which such a guest awaits.
    memory       what MemFree and the per-CPU lists lose by the PRESERVE_FD: metadata, and what LUO and KHO
                 need for their own tracking
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.case import Attempt, Case, GiB, KernelDefinition, KiB, MachineSpec, MiB, Outcome, ScenarioResult
from harness.errors import InfraError, UsageError
from harness.layout import Layout

FILE = "measure_preserve.py"
REPETITIONS = "LUH_REPETITIONS"
MEASUREMENT = re.compile(r"(guest_memfd|memfd)\.(\w+)\.(\d+)_(ms|bytes)")
# Which of the guest_memfd's figures is compared with which of the memfd's.
COMPARED = {
    "preserve": ("preserve", "preserve"),
    "unpreserve": ("unpreserve", "unpreserve"),
    "retrieve": ("retrieve", "retrieve"),
    "touch": ("touch", "touch"),
    "guest": ("to_guest", "retrieve"),
    "memory": ("metadata", "metadata"),
}


PAGE = 4 * KiB
SIZES = {"16M": 16 * MiB, "256M": 256 * MiB, "1G": 1 * GiB, "4G": 4 * GiB, "64G": 64 * GiB}


@dataclass(frozen=True, slots=True)
class Shape:
    """The pages of a file: `count` of them, every `stride`-th of the `size` bytes from the first on.

    scattered: no two of them that are neighbours in the file are neighbours in physical memory.
    """

    pattern: str
    size: int
    count: int
    stride: int = 1
    scattered: bool = False

    @property
    def name(self) -> str:
        (size,) = (word for word, size in SIZES.items() if size == self.size)
        return f"{self.pattern}-{size}"

    @property
    def packed(self) -> Shape:
        """As many pages without holes."""
        return replace(self, size=self.count * PAGE, stride=1)

    @property
    def last(self) -> int:
        """The number of the last page."""
        return (self.count - 1) * self.stride


def _full(size: int) -> Shape:
    return Shape("contiguous", size, size // PAGE)


def _half(size: int) -> Shape:
    return Shape("half", size, size // PAGE // 2, stride=2)


def _scattered(size: int) -> Shape:
    return Shape("scattered", size, size // PAGE, scattered=True)


def _sparse(size: int) -> Shape:
    return Shape("sparse", size, 16, stride=size // PAGE // 16)


SHAPES = (
    *(make(SIZES[size]) for make in (_full, _half, _scattered) for size in ("16M", "256M", "1G", "4G")),
    *(_sparse(SIZES[size]) for size in ("1G", "64G")),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one shape. Medians; unit: "ms" or "bytes". ratio: None where the memfd's is 0.

    goal: what the ratio should be at most, None where nothing was promised.
    """

    pattern: str
    size: int
    figure: str
    unit: str
    guest_memfd: float
    memfd: float
    ratio: float | None
    goal: float | None
    guest_memfd_values: tuple[float, ...]
    memfd_values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise, the ratios that it is about, and whether all of them keep it."""

    text: str
    most: float
    ratios: tuple[float, ...]
    met: bool

    @classmethod
    def of(cls, text: str, most: float, ratios: tuple[float, ...]) -> Goal:
        return cls(text, most, ratios, max(ratios) <= most)


@dataclass(frozen=True, slots=True)
class Costs:
    """All figures of a run. machine: what they hold for. unmeasured: shapes that failed, and why."""

    machine: str
    repetitions: int
    rows: tuple[Row, ...]
    goals: tuple[Goal, ...]
    unmeasured: tuple[tuple[str, str], ...]


def measure(attempt: Attempt, kernel: KernelDefinition, recipe: str, largest: int, count: int) -> Costs:
    """Measure all shapes up to that size, `count` times each, in one host for each shape.

    Raises UsageError where no shape is that small, InfraError where none could be measured.
    """
    # A sparse file is small, whatever its size.
    shapes = [shape for shape in SHAPES if shape.count * PAGE <= largest]
    if all(shape.pattern == "sparse" for shape in shapes):
        raise UsageError("no shape is that small", hint="the smallest has 16M")
    os.environ[REPETITIONS] = str(count)
    file = Layout.here().scenarios / FILE
    nodes = tuple(f"{file}::test_cost[{shape.name}]" for shape in shapes)
    case = Case(kernel, kernel, recipe, MachineSpec(), nodes)
    verdict = attempt(case)
    rows = tuple(row for result in verdict.scenarios for row in rows_of(result))
    if not rows or not verdict.kernel or not verdict.choice:
        raise InfraError(f"nothing was measured: {verdict.reason}", hint=verdict.hint, detail=verdict.detail)
    release = f"Linux {verdict.kernel.release} ({verdict.kernel.name})"
    return Costs(
        machine=f"{os.cpu_count()} CPUs, {verdict.choice.accelerator.upper()}, {release}",
        repetitions=count,
        rows=rows,
        goals=tuple(goals_of(rows)),
        unmeasured=tuple(
            (one.name, one.reason) for one in verdict.scenarios if one.outcome is not Outcome.PASS
        ),
    )


def rows_of(result: ScenarioResult) -> Iterable[Row]:
    """The figures of one shape, as far as it got."""
    (shape,) = (shape for shape in SHAPES if result.name.endswith(f"[{shape.name}]"))
    values: dict[tuple[str, str], list[float]] = {}
    for name, value in result.measurements:
        if match := MEASUREMENT.fullmatch(name):
            values.setdefault((match[1], match[2]), []).append(value)
    for figure, (ours, theirs) in COMPARED.items():
        mine, other = values.get(("guest_memfd", ours)), values.get(("memfd", theirs))
        if mine and other:
            yield _row(shape, figure, mine, other)


def _row(shape: Shape, figure: str, mine: list[float], other: list[float]) -> Row:
    guest_memfd, memfd = statistics.median(mine), statistics.median(other)
    return Row(
        pattern=shape.pattern,
        size=shape.size,
        figure=figure,
        unit="bytes" if figure == "memory" else "ms",
        guest_memfd=guest_memfd,
        memfd=memfd,
        ratio=guest_memfd / memfd if memfd > 0 else None,
        goal=_goal(shape, figure),
        guest_memfd_values=tuple(mine),
        memfd_values=tuple(other),
    )


# ---- what was promised ------------------------------------------------------------------------

THIRD, SAME, TENTH = 1 / 3, 1.0, 0.1
# Times of a fraction of a millisecond vary by that much.
INDEPENDENT = 1.5


def _goal(shape: Shape, figure: str) -> float | None:
    if figure == "preserve" and shape.pattern != "sparse":
        return THIRD if shape.pattern == "contiguous" else SAME
    return TENTH if (figure, shape.pattern, shape.size) == ("guest", "contiguous", GiB) else None


def goals_of(rows: Iterable[Row]) -> Iterable[Goal]:
    """The promises that these figures say something about."""
    rows = tuple(rows)
    promised = (
        ("preserve costs at most a third of memfd's where memory is contiguous", "preserve", THIRD),
        ("preserve costs at most what memfd's does where it is scattered", "preserve", SAME),
        ("the guest runs after at most a tenth of memfd's retrieve, with 1 GiB", "guest", TENTH),
    )
    for text, figure, most in promised:
        ratios = tuple(row.ratio for row in rows if row.figure == figure and row.goal == most and row.ratio)
        if ratios:
            yield Goal.of(text, most, ratios)
    sparse = {
        row.size: row.guest_memfd for row in rows if (row.pattern, row.figure) == ("sparse", "preserve")
    }
    if len(sparse) > 1:
        grown = sparse[max(sparse)] / sparse[min(sparse)]
        yield Goal.of(
            "preserve of 16 pages costs the same in a file of 64 GiB and of 1 GiB", INDEPENDENT, (grown,)
        )
