# SPDX-License-Identifier: GPL-2.0-or-later
"""A titled table of plain text, for all the commands that list something."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Up to these, names (of the console's width) and values (in characters) are never folded.
NAME, VALUE = 0.6, 12


def show(console: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print the rows below the title; where they do not fit, long columns are folded, and nothing is cut."""
    if not rows:
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(len(rows[0])):
        width = max(len(row[number]) for row in rows)
        whole = width <= (VALUE if number else NAME * console.width)
        table.add_column(no_wrap=whole, overflow="fold", style="" if number else "bold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(Text(title, "bold underline"))
    console.print(Padding(table, (0, 0, 0, 2)))
    console.print()
