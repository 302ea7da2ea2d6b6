# SPDX-License-Identifier: GPL-2.0-or-later
"""A titled table of plain text, for all the commands that list something."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(console: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print the rows below the title; the last column but one that is long is folded, never cut."""
    if not rows:
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(len(rows[0])):
        table.add_column(no_wrap=number == 0, overflow="fold", style="bold" if number == 0 else "")
    for row in rows:
        table.add_row(Text(f"  {row[0]}"), *map(Text, row[1:]))
    console.print(Text(title, "bold underline"))
    console.print(table)
    console.print()
