# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a run in a terminal: what failed and why, then a table of everything."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from harness.case import Outcome, ScenarioResult, Verdict
from harness.report import words
from harness.report.findings import Group, grouped

WIDE_COLUMNS = 90
DETAIL_LINES = 40
_ENDINGS = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.SKIP: "skipped",
    Outcome.BROKEN: "broken",
}


def show(console: Console, verdict: Verdict) -> None:
    """Print the summary: failures in full first, so that the table is what one sees last."""
    for result in verdict.scenarios:
        if result.outcome in (Outcome.FAIL, Outcome.BROKEN):
            _show_failure(console, verdict, result)
    console.print()
    if verdict.scenarios:
        console.print(_table(verdict, wide=console.width >= WIDE_COLUMNS))
        console.print()
    if groups := grouped(verdict.scenarios):
        console.print(_findings(groups, wide=console.width >= WIDE_COLUMNS))
        console.print()
    console.print(_facts(verdict))
    console.print()
    console.print(_ending(verdict))
    if verdict.outcome is not Outcome.PASS:
        _indented(console, verdict.reason)
    if verdict.hint:
        _indented(console, verdict.hint)
    if verdict.detail and not verdict.scenarios:
        _indented(console, verdict.detail)


def _show_failure(console: Console, verdict: Verdict, result: ScenarioResult) -> None:
    style = words.STYLES[result.outcome]
    console.print()
    console.print(Rule(Text(words.scenario(result.name), f"bold {style}"), style=style, align="left"))
    lines = result.detail.splitlines() or [result.reason]
    if len(lines) > DETAIL_LINES:
        lines = [f"[{len(lines) - DETAIL_LINES} lines more in result.json]", *lines[-DETAIL_LINES:]]
    _indented(console, "\n".join(lines))
    _indented(console, f"traces: {words.place(verdict.directory / result.traces)}")


def _indented(console: Console, text: str) -> None:
    console.print(Padding(Text(text), (0, 0, 0, 2)))


def _table(verdict: Verdict, *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(" Scenario", overflow="fold", ratio=None)
    for name in (*(("Boot", "Update") if wide else ()), "Total", "Verified"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    for result in verdict.scenarios:
        table.add_row(*_cells(result, wide=wide))
    return table


def _cells(result: ScenarioResult, *, wide: bool) -> list[Text]:
    boot = next((words.duration(phase.seconds) for phase in result.phases if phase.name == "boot"), "")
    update = words.duration(sum(one.seconds for one in result.updates)) if result.updates else ""
    verified = words.size(result.bytes_verified) if result.bytes_verified else ""
    plain = [*((boot, update) if wide else ()), words.duration(result.seconds), verified]
    verdict = Text(result.outcome.value, f"bold {words.STYLES[result.outcome]}")
    return [Text(f" {words.scenario(result.name)}"), *map(Text, plain), verdict]


def _findings(groups: tuple[Group, ...], *, wide: bool) -> Table:
    """What the kernels said against themselves, each problem once."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("Finding", overflow="fold")
    for name in ("Where", "Kernel", *(("Scenarios",) if wide else ())):
        table.add_column(name, overflow="fold")
    for group in groups:
        first, *others = group.scenarios
        names = first + (f" and {len(others)} more" if others else "")
        cells = (f" {group.count}x", group.first.title, group.first.place, group.where, names)
        table.add_row(*map(Text, cells if wide else cells[:-1]))
    return table


def _facts(verdict: Verdict) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in _fact_lines(verdict).items():
        if fact:
            table.add_row(f" {name}", Text(fact))
    return table


def _fact_lines(verdict: Verdict) -> dict[str, str]:
    phases = ", ".join(f"{phase.name} {words.duration(phase.seconds)}" for phase in verdict.phases)
    choice = verdict.choice
    return {
        "Kernel": _kernels(verdict),
        "Machine": f"{choice.accelerator.upper()}: {choice.reason}" if choice else "",
        "Verified": _verified(verdict),
        "Phases": phases,
        "Traces": words.place(verdict.directory),
    }


def _kernels(verdict: Verdict) -> str:
    if verdict.kernel is None:
        return ""
    first, following = words.kernel(verdict.kernel), verdict.next_kernel
    if following and following.digest != verdict.kernel.digest:
        return f"{first}, live-updated to {words.kernel(following)}"
    updated = any(result.updates for result in verdict.scenarios)
    return f"{first}, live-updated to itself" if updated else first


def _verified(verdict: Verdict) -> str:
    checked = sum(result.bytes_verified for result in verdict.scenarios)
    updates = sum(len(result.updates) for result in verdict.scenarios)
    return f"{words.size(checked)} over {words.count(updates, 'live update')}" if checked else ""


def _ending(verdict: Verdict) -> Text:
    counts = Counter(result.outcome for result in verdict.scenarios)
    said = ", ".join(f"{counts[outcome]} {_ENDINGS[outcome]}" for outcome in Outcome if counts[outcome])
    seconds = sum(phase.seconds for phase in verdict.phases)
    text = Text(f" {verdict.outcome} ", f"bold reverse {words.STYLES[verdict.outcome]}")
    text.append(f"  {said} in {words.duration(seconds)}" if said else "", "not reverse default")
    return text
