# SPDX-License-Identifier: GPL-2.0-or-later
"""result.json and the traces beside it -> report.html: one file for a browser, without scripts or a network.

Everything that a guest, a scenario or a user wrote is escaped by the template engine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import jinja2

from harness.report import words

Document = dict[str, Any]

HERE = Path(__file__).parent
# How much of the consoles a report may hold: all of a failure's that matters, and nothing for the 100th pass.
LINES = 3000
FAILED_HEAD, FAILED_TAIL, PASSED_AROUND, PASSED_TAIL = 40, 260, 12, 6
DETAIL_LINES = 400
LONGEST_LINE = 400
BAR = 1000.0  # the width of a bar's drawing
LEAST_BAR = 5.0
TICKS = 4
SIDES = {
    **dict.fromkeys(("preserve", "load"), "old"),
    **dict.fromkeys(("freeze", "shutdown", "purgatory", "decompression"), "dark"),
    **dict.fromkeys(("boot", "retrieve"), "new"),
    "guest runs": "guest",
}
LINE = re.compile(r" *(\d+\.\d+) ([|#]) ?(.*)")
LAST_WORDS, BANNER = "Starting new kernel", "Linux version "
REPORT = re.compile(r"Kernel panic|Oops|BUG:|WARNING:|Call Trace|general protection|RIP: |KASAN|UBSAN:|stall")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a console. kernel: 0 for the first, a number higher after each kexec; -1 for our remarks."""

    at: str
    text: str
    kernel: int
    bad: bool


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Rows of a console that belong together, and how many lines there are before them that are not shown."""

    skipped: int
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as it is drawn: x and width of BAR, and how far its start can be off on either side."""

    name: str
    side: str
    x: float
    width: float
    off: float
    took: str
    known: str


def page(result: Document, rules: Mapping[str, str]) -> str:
    """The whole of report.html. result: that of result.json, whose directory has the consoles.

    rules: what the contract's rules say, by id.
    """
    directory = Path(result["directory"])
    return template().render(
        result=result,
        name=directory.name,
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        total=sum(phase["seconds"] for phase in result["phases"]),
        scenarios=list(_scenarios(result, directory)),
        costs=list(_costs(result)),
        rules=_rules(result, rules),
        commands=reproduce(result),
    )


@cache
def template() -> jinja2.Template:
    """The page's, compiled."""
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    engine.filters.update(duration=words.duration, size=words.size, precise=precise, href=quote)
    engine.filters["short"] = words.scenario
    engine.globals["marks"] = {outcome.value: mark for outcome, mark in words.MARKS.items()}
    return engine.get_template("report.html.j2")


def reproduce(result: Document) -> tuple[str, ...]:
    """What to type to run the case again, from a checkout of the harness."""
    return ("./luh repro " + Path(result["directory"]).name,)


def precise(seconds: float) -> str:
    """ "0.56 ms", "2.4 ms", "356 ms", "8.50 s"."""
    if seconds >= 0.9995:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.{2 if milliseconds < 1 else 1 if milliseconds < 99.95 else 0}f} ms"


# ---- scenarios --------------------------------------------------------------------------------


def _scenarios(result: Document, directory: Path) -> Iterator[Document]:
    """The scenarios, each with what is drawn of it; those that failed have the consoles' lines first."""
    left = LINES
    views: dict[int, list[Excerpt]] = {}
    order = sorted(enumerate(result["scenarios"]), key=lambda pair: not _failed(pair[1]))
    for number, scenario in order:
        views[number] = _console(directory / scenario["traces"] / "console.log", scenario, left)
        left -= sum(len(excerpt.rows) for excerpt in views[number])
    for number, scenario in enumerate(result["scenarios"]):
        detail = scenario["detail"].splitlines()
        yield {
            **scenario,
            "anchor": f"s{number + 1}",
            "failed": _failed(scenario),
            "findings": scenario.get("findings", []),
            "cut": max(0, len(detail) - DETAIL_LINES),
            "detail": "\n".join(detail[-DETAIL_LINES:]),
            "updates": [_update(update) for update in scenario["live_updates"]],
            "boot": next((one["seconds"] for one in scenario["phases"] if one["name"] == "boot"), None),
            "console": views[number],
        }


def _failed(scenario: Document) -> bool:
    return scenario["outcome"] in ("FAIL", "BROKEN")


def _update(update: Document) -> Document:
    """A live update with its spans as bars on one scale."""
    spans = update["spans"]
    if not spans:
        return {**update, "bars": [], "ticks": [], "dark": None}
    start = min(span["start_seconds"] for span in spans)
    length = max(span["start_seconds"] + span["seconds"] for span in spans) - start or 1.0
    scale = BAR / length
    bars = [
        Bar(
            name=span["name"],
            side=SIDES.get(span["name"], "dark"),
            x=min((span["start_seconds"] - start) * scale, BAR - LEAST_BAR),
            width=max(span["seconds"] * scale, LEAST_BAR),
            off=span["within_seconds"] * scale,
            took=precise(span["seconds"]) if span["seconds"] else "",
            known=f"{span['known']}; within {precise(span['within_seconds'])}",
        )
        for span in spans
    ]
    ticks = [(100 * number / TICKS, precise(length * number / TICKS)) for number in range(TICKS + 1)]
    return {**update, "bars": bars, "ticks": ticks, "dark": _dark(spans)}


def _dark(spans: Sequence[Document]) -> Document | None:
    """From the order to reboot until a guest runs again, which is what its owner notices."""
    begins = next((span for span in spans if span["name"] == "freeze"), None)
    ends = next((span for span in spans if span["name"] == "guest runs"), None)
    if not begins or not ends:
        return None
    return {
        "seconds": ends["start_seconds"] - begins["start_seconds"],
        "within": begins["within_seconds"] + ends["within_seconds"],
    }


def _costs(result: Document) -> Iterator[tuple[str, int, float, float, float]]:
    """Each span over all live updates: name, how many updates, and the sum's median, least and most."""
    found: dict[str, list[float]] = {}
    for scenario in result["scenarios"]:
        for update in scenario["live_updates"]:
            sums: Counter[str] = Counter()
            for span in update["spans"]:
                sums[span["name"]] += span["seconds"]
            for name, seconds in sums.items():
                found.setdefault(name, []).append(seconds)
    for name in SIDES:
        if name in found and name != "guest runs":
            yield name, len(found[name]), median(found[name]), min(found[name]), max(found[name])


def _rules(result: Document, texts: Mapping[str, str]) -> list[Document]:
    """The contract's rules that this run's scenarios check, in the contract's order."""
    found: dict[str, list[Document]] = {}
    for number, scenario in enumerate(result["scenarios"]):
        for rule in scenario["rules"]:
            found.setdefault(rule, []).append({**scenario, "anchor": f"s{number + 1}"})
    names = [*(name for name in texts if name in found), *(name for name in found if name not in texts)]
    return [{"name": name, "text": texts.get(name, ""), "scenarios": found[name]} for name in names]


# ---- consoles ---------------------------------------------------------------------------------


def _console(log: Path, scenario: Document, left: int) -> list[Excerpt]:
    """What is shown of a console; nothing where it is not there or no room is left."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            rows = list(_rows(file))
    except OSError:
        return []
    wanted = _wanted(rows, failed=_failed(scenario))
    chosen = sorted(wanted)[-left:] if left > 0 else []
    excerpts: list[Excerpt] = []
    before = -1
    for number in chosen:
        if not excerpts or number != before + 1:
            excerpts.append(Excerpt(number - before - 1, []))
        excerpts[-1] = Excerpt(excerpts[-1].skipped, [*excerpts[-1].rows, rows[number]])
        before = number
    return excerpts


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    kernel, named = 0, False
    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        at, mark, text = match.groups()
        if mark == "#":
            yield Row(at, text, -1, False)
            continue
        if BANNER in text and named:
            kernel, named = kernel + 1, False  # another boot that no last line announced
        named = named or BANNER in text
        yield Row(at, text[:LONGEST_LINE], kernel, bool(REPORT.search(text)))
        if LAST_WORDS in text:
            kernel, named = kernel + 1, False


def _wanted(rows: Sequence[Row], *, failed: bool) -> set[int]:
    """The numbers of the rows that matter: the end, the beginning of a failure, where kernels change."""
    count = len(rows)
    head, tail = (FAILED_HEAD, FAILED_TAIL) if failed else (0, PASSED_TAIL)
    wanted = {*range(min(head, count)), *range(max(0, count - tail), count)}
    for number in range(1, count):
        changed = rows[number].kernel > rows[number - 1].kernel >= 0
        if changed or (rows[number].bad and failed):
            wanted |= {*range(max(0, number - PASSED_AROUND), min(count, number + PASSED_AROUND))}
    return wanted
