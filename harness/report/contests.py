# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness beside vmtest.sh, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.words import duration


class Figure(Protocol):
    """What is shown of harness.bench.Figure."""

    @property
    def median(self) -> float: ...
    @property
    def seconds(self) -> tuple[float, ...]: ...


class Contest(Protocol):
    """What is shown of harness.vmtest.Contest."""

    @property
    def title(self) -> str: ...
    @property
    def harness(self) -> Figure: ...
    @property
    def vmtest(self) -> Figure: ...
    @property
    def ratio(self) -> float: ...
    @property
    def goal(self) -> float: ...
    @property
    def met(self) -> bool: ...


class Contests(Protocol):
    """What is shown of harness.vmtest.Contests."""

    @property
    def machine(self) -> str: ...
    @property
    def contests(self) -> Sequence[Contest]: ...


def show(console: Console, contests: Contests) -> None:
    """Print the medians of both, and how their ratio is to the goal."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column(" whole commands", header_style="dim", overflow="fold")
    for head in ("vmtest.sh", "luh", "ratio", "goal"):
        table.add_column(head, justify="right", header_style="dim", no_wrap=True)
    for one in contests.contests:
        ratio = Text(f"{one.ratio:.2f}", "green" if one.met else "red")
        ratio.append("" if one.met else " missed")
        times = (duration(one.vmtest.median), duration(one.harness.median))
        table.add_row(f" {one.title}", *times, ratio, f"{one.goal:.2f}")
    console.print(table)
    count = len(contests.contests[0].harness.seconds)
    console.print(Text(f" {contests.machine}; medians of {count}, turn by turn", "dim"))
