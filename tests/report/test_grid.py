# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes in two dimensions, in a terminal and as a page."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.case import Outcome
from harness.report import grid
from harness.report.grid import Square

REFUSED = "refused as documented: KHO differs"
SQUARES = (
    Square("a > a", "basic", Outcome.PASS, seconds=40.0),
    Square("a > a", "kexec", Outcome.FAIL, "page 5: <zeroes>", 40.0, "runs/1"),
    Square("a > b", "basic", Outcome.PASS, REFUSED, 40.0),
    Square("a > b", "kexec", Outcome.PASS, REFUSED, 40.0),
    Square("b > a", "kexec", Outcome.PASS, REFUSED, 40.0),
)


def shown(columns: int, squares: tuple[Square, ...] = SQUARES) -> list[str]:
    out = io.StringIO()
    grid.show(Console(file=out, width=columns, color_system=None), "Matrix plan", squares)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    return [line.strip() for line in lines]


@pytest.mark.parametrize("columns", [28, 60, 160])
def test_a_note_is_said_once_for_all_that_it_holds_for(columns: int) -> None:
    lines = shown(columns)
    text = " ".join(lines)
    assert text.count("documented") == 1
    assert lines.index("\N{CHECK MARK} a > b  basic, kexec") + 1 == lines.index("b > a  kexec")
    assert "\N{BALLOT X} a > a  kexec" in lines
    assert "5 cells: 4 PASS, 1 FAIL" in text


def test_rows_become_blocks_where_the_table_is_too_wide() -> None:
    assert "a > b  PASS*  PASS*" in shown(60)
    narrow = shown(20)
    assert "a > b  PASS*  PASS*" not in narrow
    assert "PASS*  basic" in narrow


def test_page_has_each_note_once_and_no_heading_for_none() -> None:
    page = grid.page("Matrix plan", SQUARES)
    assert page.count(f"<dd>{REFUSED}</dd>") == 1
    assert "page 5: &lt;zeroes&gt;" in page
    assert '<a href="runs/1">FAIL' in page
    assert page.count("PASS* <small>") == 3
    assert "5 cells: 4 PASS, 1 FAIL" in page
    assert "Notes" not in grid.page("Matrix plan", SQUARES[:1])
