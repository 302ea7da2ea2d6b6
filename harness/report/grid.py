# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes in two dimensions: a table where there is room for one, else a block a row; and as a web page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.case import Outcome
from harness.report import words

OUTCOME_COLUMNS = 8
GAP = 2


@dataclass(frozen=True, slots=True)
class Square:
    """One outcome. note: what a reader should know of it, in a line; link: to its traces, relative or
    absolute.
    """

    row: str
    column: str
    outcome: Outcome
    note: str = ""
    seconds: float = 0.0
    link: str = ""


def show(console: Console, title: str, squares: Sequence[Square]) -> None:
    """Print the grid, then what is not a plain pass, in full."""
    console.print()
    console.print(Text(title, "bold underline"))
    columns = list(dict.fromkeys(one.column for one in squares))
    rows = list(dict.fromkeys(one.row for one in squares))
    width = (
        max(map(len, rows), default=0) + sum(max(len(one), OUTCOME_COLUMNS) + GAP for one in columns) + GAP
    )
    if width <= console.width:
        console.print(_table(squares, rows, columns))
    else:
        _blocks(console, squares, rows)
    console.print()
    for (outcome, note), places in _notes(squares).items():
        for number, place in enumerate(places):
            mark = " " if number else words.MARKS[outcome]
            text = Text(f"{mark} ", words.STYLES[outcome]) + Text(place, "default")
            console.print(Padding(text, (0, 0, 0, 1)))
        console.print(Padding(Text(note, "dim"), (0, 0, 0, 3)))
    console.print(Text(f" {_totals(squares)}"))


def _notes(squares: Sequence[Square]) -> dict[tuple[Outcome, str], list[str]]:
    """Where each note is due: a row with its columns in a line."""
    found: dict[tuple[Outcome, str], dict[str, list[str]]] = {}
    for one in squares:
        if one.note:
            found.setdefault((one.outcome, one.note), {}).setdefault(one.row, []).append(one.column)
    return {
        key: [f"{row}  {', '.join(columns)}".rstrip() for row, columns in rows.items()]
        for key, rows in found.items()
    }


def _table(squares: Sequence[Square], rows: Sequence[str], columns: Sequence[str]) -> Table:
    found = {(one.row, one.column): one for one in squares}
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(Text(column or "verdict"), no_wrap=True)
    for row in rows:
        cells = [_word(found[row, column]) if (row, column) in found else Text("") for column in columns]
        table.add_row(Text(f" {row}"), *cells)
    return table


def _blocks(console: Console, squares: Sequence[Square], rows: Sequence[str]) -> None:
    for row in rows:
        console.print(Text(f" {row}", "bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for one in squares:
            if one.row == row:
                table.add_row(Text("   ") + _word(one), Text(one.column))
        console.print(table)


def _word(square: Square) -> Text:
    return Text(_said(square), f"bold {words.STYLES[square.outcome]}")


def _said(square: Square) -> str:
    """The outcome; with a mark where a pass is none without its note."""
    return f"{square.outcome}*" if square.outcome is Outcome.PASS and square.note else str(square.outcome)


def _totals(squares: Sequence[Square]) -> str:
    counts = Counter(one.outcome for one in squares)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    seconds = sum(one.seconds for one in squares)
    return f"{words.count(len(squares), 'cell')}: {said}, {words.duration(seconds)} of runs"


# ---- as a web page ----------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --pass: #1a7f37; --fail: #cf222e; --skip: #9a6700; --broken: #8250df;
        --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } .facts { opacity: .75; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .8rem; text-align: left; white-space: nowrap; }
th { font-weight: 600; } td a { color: inherit; }
.PASS { color: var(--pass); } .FAIL { color: var(--fail); } .SKIP { color: var(--skip); }
.BROKEN { color: var(--broken); } td.FAIL, td.BROKEN { font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; }
dt { font-weight: 600; grid-column: 1; } dd { margin: 0; grid-column: 2; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { display: block; } dd { margin-bottom: .6rem; } }
"""


def page(title: str, squares: Sequence[Square]) -> str:
    """The grid as a page of its own: no script, nothing to load."""
    columns = list(dict.fromkeys(one.column for one in squares))
    rows = list(dict.fromkeys(one.row for one in squares))
    found = {(one.row, one.column): one for one in squares}
    head = "".join(f"<th>{escape(column or 'verdict')}</th>" for column in columns)
    body = "\n".join(
        f"<tr><th>{escape(row)}</th>"
        + "".join(_cell(found.get((row, column))) for column in columns)
        + "</tr>"
        for row in rows
    )
    notes = "\n".join(
        "".join(f'<dt class="{outcome}">{escape(place)}</dt>' for place in places)
        + f"<dd>{escape(note)}</dd>"
        for (outcome, note), places in _notes(squares).items()
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<h1>{escape(title)}</h1>\n<p class="facts">{escape(_totals(squares))}</p>\n'
        f'<div class="scroll"><table>\n<tr><th></th>{head}</tr>\n{body}\n</table></div>\n'
        + (f"<h2>Notes</h2>\n<dl>\n{notes}\n</dl>\n" if notes else "")
        + "</html>\n"
    )


def _cell(square: Square | None) -> str:
    if square is None:
        return "<td></td>"
    word = f"{_said(square)} <small>{words.duration(square.seconds)}</small>"
    inner = f'<a href="{escape(square.link)}">{word}</a>' if square.link else word
    return f'<td class="{square.outcome}" title="{escape(square.note)}">{inner}</td>'
