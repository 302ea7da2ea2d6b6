# SPDX-License-Identifier: GPL-2.0-or-later
"""report.html: what it has of a run, and that it is one file in which nothing foreign comes to life."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.case import Case, Outcome, Span, Verdict
from harness.report.document import document
from harness.report.html import LINES, page, precise

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "input", "br", "rect"}
SPANS = (
    Span("preserve", 10.0, 0.002, 0.0005, "the agent's clock"),
    Span("freeze", 11.0, 0.5, 0.001, "the order"),
    Span("boot", 11.5, 1.5, 0.002, "the new kernel's first line"),
    Span("guest runs", 13.5, 0.0, 0.001, "the first vCPU"),
)


class Reader(HTMLParser):
    """Checks that tags are closed in order; keeps their names, ids and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and value]
        self.links += [value for name, value in attributes if name in ("href", "src") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def write_console(verdict: Verdict, number: int, lines: list[str]) -> None:
    traces = verdict.directory / verdict.scenarios[number].traces
    traces.mkdir(exist_ok=True)
    (traces / "console.log").write_text("\n".join(lines) + "\n")


@pytest.fixture
def updated(verdict: Verdict) -> Verdict:
    """The verdict, with spans in its first scenario's live update."""
    first = verdict.scenarios[0]
    update = replace(first.updates[0], spans=SPANS)
    return replace(verdict, scenarios=(replace(first, updates=(update,)), *verdict.scenarios[1:]))


def test_it_is_one_whole_file_without_scripts_or_a_network(case: Case, updated: Verdict) -> None:
    text = page(document(case, updated), {"K3": "What is preserved."})
    reader = read(text)
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(reader.ids) == len(set(reader.ids))
    for link in reader.links:
        assert (link[1:] in reader.ids) if link.startswith("#") else not link.startswith(("/", "file:")), link


def test_what_a_guest_or_a_scenario_wrote_is_text(case: Case, verdict: Verdict) -> None:
    evil = replace(verdict.scenarios[1], name=f"test_a.py::{EVIL}", reason=EVIL, detail=EVIL, rules=(EVIL,))
    verdict = replace(verdict, reason=EVIL, detail=EVIL, scenarios=(verdict.scenarios[0], evil))
    write_console(verdict, 1, [f"    0.100000 | {EVIL}", f"    0.200000 # {EVIL}"])
    text = page(document(case, verdict), {EVIL: EVIL})
    assert "script" not in read(text).tags
    assert text.count("&lt;script&gt;") >= 8


def test_failures_are_open_and_come_first(case: Case, updated: Verdict) -> None:
    text = page(document(case, updated), {})
    for number, scenario in enumerate(updated.scenarios, 1):
        (opened,) = re.findall(rf'<details class="scenario" id="s{number}"[^>]*?( open)?>', text)
        assert bool(opened) is (scenario.outcome in (Outcome.FAIL, Outcome.BROKEN))
    assert text.index('href="#s2">test_fails') < text.index("<h2")


def test_spans_are_drawn_to_scale_and_say_how_they_are_known(case: Case, updated: Verdict) -> None:
    text = page(document(case, updated), {})
    bars = re.findall(r'<rect x="([\d.]+)" width="([\d.]+)"', text)
    # 3.5 s in all: the freeze begins after 1.0 of them, the boot after 1.5 and lasts 1.5.
    assert ("285.7", "142.9") in bars
    assert ("428.6", "428.6") in bars
    assert "the agent&#39;s clock; within 0.50 ms" in text
    assert "No guest ran for <b>2.50 s</b>" in text
    assert '<td class="num">2.0 ms</td>' in text  # the median of preserve


def test_kernels_on_the_console_are_told_apart(case: Case, verdict: Verdict) -> None:
    lines = [
        "    0.000100 # power on",
        "    0.100000 | [    0.000000] Linux version 7.3.4",
        "    1.000000 | [    0.900000] kexec_core: Starting new kernel",
        "    1.500000 | [    0.000000] Linux version 7.3.4",
        "    1.600000 | [    0.100000] WARNING: at mm/page_alloc.c:1",
    ]
    write_console(verdict, 1, lines)
    text = page(document(case, verdict), {})
    rows = re.findall(r'<div class="(k\d|remark k0 k1)( bad)?"><span>([\d.]+)</span>', text)
    assert [(kernel, at) for kernel, _, at in rows] == [
        ("remark k0 k1", "0.000100"),
        ("k0", "0.100000"),
        ("k0", "1.000000"),
        ("k1", "1.500000"),
        ("k1", "1.600000"),
    ]
    assert [bool(bad) for _, bad, _ in rows] == [False] * 4 + [True]
    assert text.count("kexec: the next kernel") == 1


def test_long_consoles_are_cut_and_linked(case: Case, verdict: Verdict) -> None:
    many = tuple(replace(verdict.scenarios[1], name=f"test_a.py::test_{n}") for n in range(40))
    verdict = replace(verdict, scenarios=many)
    for number in range(len(many)):
        write_console(verdict, number, [f"    {n}.000000 | line {n} of a flood" for n in range(5000)])
    text = page(document(case, verdict), {})
    assert text.count("of a flood") == LINES
    assert "lines not shown" in text
    assert "line 4999 of a flood" in text
    assert 'href="test_a.test_0/console.log"' in text


def test_run_without_scenarios_says_why(case: Case, tmp_path: Path) -> None:
    verdict = Verdict(
        Outcome.FAIL,
        "patch 3 does not apply",
        tmp_path / "20261121T022535Z-ab12",
        hint="rebase",
        detail="hunk",
    )
    text = page(document(case, verdict), {})
    read(text)
    for said in ("patch 3 does not apply", "rebase", "hunk", "no scenario ran"):
        assert said in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.00056, "0.56 ms"), (0.0024, "2.4 ms"), (0.356, "356 ms"), (8.5, "8.50 s")]
)
def test_precise_times(seconds: float, said: str) -> None:
    assert precise(seconds) == said
