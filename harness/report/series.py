# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check of a series found: a row for each patch, and below it what is wrong, at its patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.case import Outcome
from harness.report import words

WIDE_COLUMNS = 96
NUMBER_WIDTH, TIME_WIDTH, LEAST_SUBJECT = 3, 8, 12
# The checks, by what they are called where there is room, and where there is none.
HEADS = {
    "applies": "app",
    "builds": "bld",
    "W=1": "W=1",
    "checkpatch": "chk",
    "boots": "boot",
    "scenarios": "scn",
}


class Finding(Protocol):
    """What is shown of harness.check_series.Finding."""

    @property
    def check(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def text(self) -> str: ...


class Row(Protocol):
    """What is shown of harness.check_series.Row."""

    @property
    def number(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def kept(self) -> bool: ...


class Break(Protocol):
    """What is shown of harness.check_series.Break."""

    @property
    def check(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def mended_by(self) -> int | None: ...


class Report(Protocol):
    """What is shown of harness.check_series.Report."""

    @property
    def series(self) -> str: ...
    @property
    def tree(self) -> str: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def breaks(self) -> Sequence[Break]: ...
    @property
    def outcome(self) -> Outcome: ...


def show(console: Console, report: Report) -> None:
    """Print the table, then what is wrong, then the verdict, which is the answer."""
    wide = console.width >= WIDE_COLUMNS
    heading = Text(f"Series {report.series}", "bold underline")
    console.print(heading.append(f"  on {report.tree}", "not bold not underline"))
    console.print()
    console.print(_table(report, console.width))
    console.print()
    for one in report.breaks:
        console.print(Padding(_broken(one, wide=wide), (0, 0, 0, 1)))
    for row in report.rows:
        for finding in row.findings:
            if finding.outcome is Outcome.BROKEN:
                console.print(_line("!", "magenta", row.number, finding.check, finding.text, wide=wide))
    if said := _not_yet(report.rows):
        console.print(Padding(Text(said, "yellow"), (0, 0, 0, 1)))
    console.print(_verdict(report))


def _table(report: Report, width: int) -> Table:
    """As wide as it is told, so that the subjects give way and never the columns."""
    wide = width >= WIDE_COLUMNS
    heads = tuple(HEADS) if wide else tuple(HEADS.values())
    rest = NUMBER_WIDTH + 1 + sum(len(head) + 1 for head in heads) + (TIME_WIDTH + 1 if wide else 0)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("#", justify="right", no_wrap=True, width=NUMBER_WIDTH)
    table.add_column("Patch", no_wrap=True, overflow="ellipsis", width=max(width - rest - 1, LEAST_SUBJECT))
    for head in heads:
        table.add_column(head, justify="center", no_wrap=True, width=len(head))
    if wide:
        table.add_column("", justify="right", no_wrap=True, width=TIME_WIDTH)
    for row in report.rows:
        found = {str(one.check): one for one in row.findings}
        marks = [_mark(found[name].outcome) if name in found else Text() for name in HEADS]
        spent = [Text("known" if row.kept else words.duration(row.seconds), "dim")] if wide else []
        table.add_row(str(row.number), Text(row.subject, "" if row.number else "dim"), *marks, *spent)
    return table


def _mark(outcome: Outcome) -> Text:
    return Text(words.MARKS[outcome], words.STYLES[outcome])


def _broken(one: Break, *, wide: bool) -> Text:
    mended = f"mended by {one.mended_by}" if one.mended_by is not None else ""
    text = f"{one.text}{'; ' if one.text and mended else ''}{mended}"
    return _line("✗", "red", one.number, one.check, text, wide=wide)


def _line(mark: str, style: str, number: int, check: str, text: str, *, wide: bool) -> Text:
    width = max(map(len, HEADS)) if wide else 0
    return Text(f"{mark} ", style).append(f"{number:2} {check:{width}}  ", "bold").append(text, "default")


def _not_yet(rows: Sequence[Row]) -> str:
    """The patches after which there was nothing to be tested yet, and why at the last of them."""
    waiting = [
        (row.number, one.text)
        for row in rows
        for one in row.findings
        if one.check == "scenarios" and one.outcome is Outcome.SKIP
    ]
    if not waiting:
        return ""
    numbers = f"{waiting[0][0]} to {waiting[-1][0]}" if len(waiting) > 1 else str(waiting[0][0])
    return f"- {numbers} scenarios {waiting[-1][1]}"


def _verdict(report: Report) -> Text:
    patches = [row for row in report.rows if row.number]
    faulty = {one.number for one in report.breaks}
    lasting = {one.number for one in report.breaks if one.mended_by is None}
    said = words.count(len(patches), "patch")
    if faulty:
        said += f", {len(faulty)} at fault" + (
            f", {len(faulty - lasting)} of them mended later" if faulty - lasting else ""
        )
    new = [row.seconds for row in report.rows if not row.kept]
    said += f"; {len(report.rows) - len(new)} rows known before" if len(new) < len(report.rows) else ""
    said += f"; {words.duration(sum(new))}" if new else ""
    return Text(f"\n {report.outcome}", f"bold {words.STYLES[report.outcome]}").append(
        f"   {said}", "default"
    )
