# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a start in a terminal, each with a bar as long as its share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE_COLUMNS, BAR_COLUMNS = 76, 24


class Step(Protocol):
    """What is shown of harness.breakdown.Step."""

    @property
    def name(self) -> str: ...
    @property
    def median(self) -> float: ...
    @property
    def least(self) -> float: ...
    @property
    def most(self) -> float: ...
    @property
    def within(self) -> float: ...


class Slow(Protocol):
    """What is shown of harness.breakdown.Slow."""

    @property
    def name(self) -> str: ...
    @property
    def median(self) -> float: ...


class Part(Protocol):
    """What is shown of harness.breakdown.Part."""

    @property
    def title(self) -> str: ...
    @property
    def total(self) -> float: ...
    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def initcalls(self) -> Sequence[Slow]: ...


class Breakdown(Protocol):
    """What is shown of harness.breakdown.Breakdown."""

    @property
    def machine(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def parts(self) -> Sequence[Part]: ...


def show(console: Console, breakdown: Breakdown) -> None:
    """Print a table for each part, and below it the initcalls that took longest."""
    for part in breakdown.parts:
        console.print(_table(part, wide=console.width >= WIDE_COLUMNS))
        console.print()
    runs = f"medians of {breakdown.count} runs" if breakdown.count > 1 else "one run"
    console.print(Text(f" {breakdown.machine}; milliseconds, {runs}.", "dim"))
    console.print(Text(" ±: by how much the start of a step can be off.", "dim"))


def _table(part: Part, *, wide: bool) -> Table:
    heads = ("median", *(("least", "most") if wide else ()), "±")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column(Text(f" {part.title}", "bold"), overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", header_style="dim", no_wrap=True)
    if wide:
        table.add_column("", no_wrap=True)
    for step in part.steps:
        spread = (_ms(step.least), _ms(step.most)) if wide else ()
        bar = (Text("━" * round(BAR_COLUMNS * step.median / part.total), "green"),) if wide else ()
        table.add_row(f" {step.name}", _ms(step.median), *spread, Text(_ms(step.within), "dim"), *bar)
    table.add_row(Text(" whole", "bold"), Text(_ms(part.total), "bold"))
    if part.initcalls:
        table.add_row("")
        table.add_row(Text(" slowest initcalls", "dim"))
    for call in part.initcalls:
        table.add_row(f" {call.name}", _ms(call.median))
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.01 else f"{seconds * 1000:.1f}"
