# SPDX-License-Identifier: GPL-2.0-or-later
"""The costs of a live update in a terminal: a line for each shape where there is room, else a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report import words

WIDE_COLUMNS = 116
TITLES = {
    "preserve": "Preserve",
    "unpreserve": "Unpreserve",
    "retrieve": "Retrieve",
    "touch": "First touch",
    "guest": "Guest runs",
    "memory": "Memory",
}
PATTERNS = {
    "contiguous": "contiguous",
    "half": "every second page",
    "scattered": "scattered",
    "sparse": "16 pages",
}
LEGEND = (
    "The guest_memfd's median, and its ratio to the memfd's. Guest runs: from the first retrieve to the"
    " guest's first load, against memfd's retrieve."
)


class Row(Protocol):
    """What is shown of harness.costs.Row."""

    @property
    def pattern(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def figure(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def guest_memfd(self) -> float: ...
    @property
    def memfd(self) -> float: ...
    @property
    def ratio(self) -> float | None: ...
    @property
    def goal(self) -> float | None: ...


class Goal(Protocol):
    """What is shown of harness.costs.Goal."""

    @property
    def text(self) -> str: ...
    @property
    def ratios(self) -> tuple[float, ...]: ...
    @property
    def met(self) -> bool: ...


class Costs(Protocol):
    """What is shown of harness.costs.Costs."""

    @property
    def machine(self) -> str: ...
    @property
    def repetitions(self) -> int: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def goals(self) -> Sequence[Goal]: ...
    @property
    def unmeasured(self) -> Sequence[tuple[str, str]]: ...


def show(console: Console, costs: Costs) -> None:
    """Print everything; the goals come last, because they are the answer."""
    heading = Text("Cost of a live update", "bold underline")
    console.print(heading.append(f"  {costs.machine}, n={costs.repetitions}", "not bold not underline"))
    console.print()
    shapes = [list(group) for _, group in groupby(costs.rows, key=lambda row: (row.pattern, row.size))]
    if console.width >= WIDE_COLUMNS:
        console.print(_wide(shapes))
        console.print(Padding(Text(LEGEND, "dim"), (0, 0, 0, 1)))
    else:
        console.print(_narrow(shapes))
    console.print()
    for name, reason in costs.unmeasured:
        console.print(Text(f" - {words.scenario(name)}: {reason}", "yellow"))
    for goal in costs.goals:
        console.print(_goal(goal))


def _wide(shapes: list[list[Row]]) -> Table:
    """A line for each shape, its figures beside each other."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(" Memory of the guest", no_wrap=True)
    for title in TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for rows in shapes:
        found = {row.figure: row for row in rows}
        cells = [_brief(found[figure]) if figure in found else Text() for figure in TITLES]
        table.add_row(f" {_shape(rows[0])}", *cells)
    return table


def _narrow(shapes: list[list[Row]]) -> Table:
    """A block for each shape, a figure on each line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for title in ("guest_memfd", "memfd", "ratio", "goal"):
        table.add_column(title, justify="right", no_wrap=True)
    for rows in shapes:
        table.add_row(Text(_shape(rows[0]), "bold"))
        for row in rows:
            table.add_row(f"  {TITLES[row.figure]}", *_cells(row))
    return table


def _cells(row: Row) -> Iterator[Text]:
    yield Text(quantity(row.guest_memfd, row.unit))
    yield Text(quantity(row.memfd, row.unit))
    yield Text(ratio(row.ratio), _style(row))
    yield Text(f"{row.goal:.2f}" if row.goal else "", "dim")


def _brief(row: Row) -> Text:
    return Text(quantity(row.guest_memfd, row.unit)).append(f" {ratio(row.ratio):>5}", _style(row))


def _style(row: Row) -> str:
    if row.goal is None or row.ratio is None:
        return "dim"
    return "green" if row.ratio <= row.goal else "red"


def _shape(row: Row) -> str:
    return f"{words.size(row.size):>7} {PATTERNS[row.pattern]}"


def _goal(goal: Goal) -> Text:
    mark, style = ("✓", "green") if goal.met else ("✗", "red")
    least, most = ratio(min(goal.ratios)), ratio(max(goal.ratios))
    said = least if least == most else f"{least} to {most}"
    return Text(f" {mark} ", style).append(f"{goal.text}: {said}", "default")


def quantity(value: float, unit: str) -> str:
    """ "0.42 ms", "7.1 ms", "412 ms"; "12 KiB"."""
    if unit == "bytes":
        return words.size(round(value))
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def ratio(value: float | None) -> str:
    """ "0.18", "12"; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
