# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh history`: what is new since the last good night."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.case import Outcome, ScenarioResult
from harness.commands import output
from harness.errors import UsageError
from harness.options import Parser

if TYPE_CHECKING:
    from harness.history import Failure, News, Slowdown

NOTHING_NEW, NEW = 0, 1


def add(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", default="", help="of the matrix (the only one there is)")
    parser.add_argument("--database", type=Path, metavar="FILE", help="($LUH_HISTORY, or the user's)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML, of what is new")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    output.add_color(parser)
    parser.epilog = "Exit status 1 only where something is new; what failed before is no news."


def run(options: argparse.Namespace) -> int:
    from harness.exchange import encode
    from harness.history import History, default_path

    with History(options.database or default_path()) as history:
        news = history.news(_name(options.name, history.names()))
    assert news is not None
    if options.json:
        print(json.dumps(encode(news), indent=2))
    else:
        _show(options, news)
    if options.html:
        options.html.write_text(_page(news), encoding="utf-8")
    if options.junit:
        options.junit.write_text(_junit(news), encoding="utf-8")
    return NEW if news.is_new else NOTHING_NEW


def _name(wanted: str, known: Sequence[str]) -> str:
    if not known:
        raise UsageError("the history is empty", hint="`luh matrix` and `luh merge` fill it")
    if wanted and wanted not in known:
        raise UsageError(
            f"there is no matrix {wanted!r} in the history", hint="there are: " + ", ".join(known)
        )
    if not wanted and len(known) > 1:
        raise UsageError("there are several matrices in the history", hint="name one of " + ", ".join(known))
    return wanted or known[0]


def _show(options: argparse.Namespace, news: News) -> None:
    from harness.report.tables import show
    from harness.report.words import count

    console = output.stdout(options)
    for title, rows in _sections(news).items():
        show(console, title, rows)
    since = f"since the good night of {news.good}" if news.good else "there was no good night before"
    new = len(news.failures) + len(news.slowdowns)
    console.print(f"{news.night}: {count(news.verdicts, 'verdict')}, {new or 'nothing'} new ({since})")


def _sections(news: News) -> dict[str, list[tuple[str, str]]]:
    """Titles and rows, of those that have any."""
    sections = {
        "New failures": [(one.track.name, _told(one)) for one in news.failures],
        "Slower": [(one.track.name, _slower(one)) for one in news.slowdowns],
        "Flaky": [
            (one.track.name, f"failed {one.failed} of the last {one.runs} nights: {one.reason}")
            for one in news.flakes
        ],
        "Failed before": [(one.track.name, _told(one)) for one in news.known],
        "Mended": [(one.name, "passes again") for one in news.mended],
    }
    return {title: rows for title, rows in sections.items() if rows}


def _told(failure: Failure) -> str:
    return f"{failure.outcome} since {failure.since}: {failure.reason}"


def _slower(one: Slowdown) -> str:
    return (
        f"{one.figure}: {one.value:.4g} after {one.usual:.4g} (median of {one.runs} nights),"
        f" {one.value / one.usual - 1:+.0%}, {one.score:.1f} deviations"
    )


def _page(news: News) -> str:
    from html import escape

    from harness.report.grid import STYLE

    parts = [
        f"<h2>{escape(title)}</h2>\n<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>\n" for name, text in rows)
        + "</dl>"
        for title, rows in _sections(news).items()
    ]
    since = f"The last good night before it: {news.good}." if news.good else "No good night before it."
    body = "\n".join(parts) or "<p>Nothing is new, and nothing fails.</p>"
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Night of {escape(news.night)}</title>\n<style>{STYLE}</style>\n"
        f"<h1>Night of {escape(news.night)}</h1>\n"
        f'<p class="facts">{news.verdicts} verdicts. {escape(since)}</p>\n'
        f"{body}\n</html>\n"
    )


def _junit(news: News) -> str:
    """A failed test for each thing that is new; one that passed where there is none."""
    from harness.report.junit import suite

    cases = [
        ScenarioResult(one.track.name, one.outcome, 0.0, one.reason, _told(one)) for one in news.failures
    ]
    cases += [
        ScenarioResult(f"{one.track.name} {one.figure}", Outcome.FAIL, 0.0, _slower(one))
        for one in news.slowdowns
    ]
    return suite("luh history", cases or [ScenarioResult("nothing is new", Outcome.PASS, 0.0)])
