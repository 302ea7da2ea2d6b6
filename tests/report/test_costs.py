# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of costs: everything in narrow terminals, an overview in wide ones, and the goals below."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.case import GiB, MiB
from harness.costs import Costs, Goal, Row
from harness.report.costs import quantity, ratio, show


def row(pattern: str, size: int, figure: str, mine: float, other: float, goal: float | None = None) -> Row:
    unit = "bytes" if figure == "memory" else "ms"
    return Row(pattern, size, figure, unit, mine, other, mine / other, goal, (mine,), (other,))


COSTS = Costs(
    machine="2 CPUs, TCG, Linux 7.3.4 (linux-7.3)",
    repetitions=5,
    rows=(
        row("contiguous", 16 * MiB, "preserve", 0.44, 1.49, 1 / 3),
        row("contiguous", 16 * MiB, "memory", 12288, 98304),
        row("scattered", GiB, "preserve", 150.0, 100.0, 1.0),
    ),
    goals=(
        Goal.of("preserve costs at most a third", 1 / 3, (0.29, 0.31)),
        Goal.of("preserve costs at most the same", 1.0, (1.5,)),
    ),
    unmeasured=(("measure_preserve.py::test_cost[contiguous-4G]", "too little memory"),),
)


def shown(width: int) -> list[str]:
    stream = io.StringIO()
    show(Console(file=stream, width=width, color_system=None), COSTS)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    lines = shown(width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for word in ("0.44 ms", "0.30", "12 KiB", "150 ms", "too little memory", "n=5"):
        assert word in text


def test_narrow_terminal_shows_both_sides_and_the_goal() -> None:
    (line,) = (line for line in shown(80) if "150 ms" in line)
    assert line.split() == ["Preserve", "150", "ms", "100", "ms", "1.50", "1.00"]


def test_wide_terminal_has_a_line_for_each_shape() -> None:
    (line,) = (line for line in shown(130) if "16 MiB contiguous" in line)
    assert line.split()[3:] == ["0.44", "ms", "0.30", "12", "KiB", "0.12"]


def test_goals_are_the_last_thing_and_marked() -> None:
    met, missed = shown(100)[-2:]
    assert met == " ✓ preserve costs at most a third: 0.29 to 0.31"
    assert missed == " ✗ preserve costs at most the same: 1.50"


def test_quantities() -> None:
    assert [quantity(value, "ms") for value in (0.417, 7.06, 412.3)] == ["0.42 ms", "7.1 ms", "412 ms"]
    assert quantity(12288, "bytes") == "12 KiB"
    assert [ratio(value) for value in (0.1789, 12.4, None)] == ["0.18", "12", "-"]
