# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios beside each other: each runs once, and those that must be alone are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import command, slots
from harness.case import Bench, Outcome, ScenarioResult
from harness.crew import hired
from harness.exchange import Collected, Ended, Event, Step
from harness.layout import Layout

Run = Callable[[str], list[ScenarioResult]]

# Each writes down when it began and ended, on the clock that all processes share.
BODY = """
import time
def nap(bench, name):
    began = time.monotonic()
    time.sleep(0.6)
    with (bench.directory.parent / "times").open("a") as file:
        file.write(f"{name} {began} {time.monotonic()}\\n")
"""


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def run(
    paper_bench: Bench, events: list[Event], standin: object, write_scenario: Callable[[str], Path]
) -> Run:
    def run(body: str) -> list[ScenarioResult]:
        bench, nodes = replace(paper_bench, jobs=2), (str(write_scenario(BODY + body)),)
        with hired(nodes, Layout.here(), bench.directory, time.monotonic()) as crew:
            crew.begin(bench)
            crew.follow(bench, events.append)
        return [event.result for event in events if isinstance(event, Ended)]

    return run


def overlap(bench: Bench) -> set[tuple[str, str]]:
    """The pairs of scenarios that ran at the same time."""
    lines = [line.split() for line in (bench.directory / "times").read_text().splitlines()]
    spans = {name: (float(began), float(ended)) for name, began, ended in lines}
    return {
        (one, two)
        for one, (began, ended) in spans.items()
        for two, (other, _) in spans.items()
        if one < two and began < spans[two][1] and other < ended
    }


def test_each_scenario_runs_once_and_two_at_a_time(run: Run, events: list[Event], paper_bench: Bench) -> None:
    results = run(
        '@pytest.mark.parametrize("name", "abcd")\ndef test_it(host, bench, name):\n    nap(bench, name)\n'
    )
    assert sorted(result.name[-2] for result in results) == ["a", "b", "c", "d"]
    assert {result.outcome for result in results} == {Outcome.PASS}
    assert len([event for event in events if isinstance(event, Collected)]) == 1
    assert overlap(paper_bench)
    assert len(list(paper_bench.directory.glob("*/console.log"))) == 4


def test_scenario_that_must_be_alone_is(run: Run, paper_bench: Bench) -> None:
    results = run(
        "def test_a(host, bench):\n    nap(bench, 'a')\n"
        "@pytest.mark.alone\ndef test_b(host, bench):\n    nap(bench, 'b')\n"
        "def test_c(host, bench):\n    nap(bench, 'c')\n"
    )
    assert len(results) == 3
    assert not {pair for pair in overlap(paper_bench) if "b" in pair}


def test_large_machine_takes_the_room_of_several(run: Run, paper_bench: Bench) -> None:
    run(
        "@pytest.mark.machine(memory=2 << 30)\ndef test_a(host, bench):\n    nap(bench, 'a')\n"
        "def test_b(host, bench):\n    nap(bench, 'b')\n"
    )
    assert not overlap(paper_bench)


def test_process_that_dies_takes_no_other_with_it(run: Run, events: list[Event]) -> None:
    results = run(
        "import os\ndef test_a(host, bench):\n    os._exit(9)\n"
        '@pytest.mark.parametrize("name", "bcd")\ndef test_it(host, bench, name):\n    nap(bench, name)\n'
    )
    assert sorted(result.name[-2] for result in results) == ["b", "c", "d"]
    (collected,) = (event for event in events if isinstance(event, Collected))
    assert len(collected.names) == 4  # so the attempt knows that one is missing


def test_stubborn_processes_are_ended_together(
    paper_bench: Bench, standin: object, write_scenario: Callable[[str], Path]
) -> None:
    deaf = """
import signal, time
@pytest.mark.parametrize("name", "ab")
def test_it(host, name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.5)
    host.call("host.clock")  # long enough after the step before to be shown
    time.sleep(60)
"""
    left: list[float] = []

    def interrupt_the_second(event: Event) -> None:
        if isinstance(event, Step) and event.text == "host.clock":
            left.append(time.monotonic())
        if len(left) == 2:
            raise KeyboardInterrupt

    bench, nodes = replace(paper_bench, jobs=2), (str(write_scenario(deaf)),)
    hiring = hired(nodes, Layout.here(), bench.directory, time.monotonic())
    with pytest.raises(KeyboardInterrupt), hiring as crew:
        crew.begin(bench)
        crew.follow(bench, interrupt_the_second)
    assert command.GRACE_SECONDS <= time.monotonic() - left[-1] < 1.8 * command.GRACE_SECONDS


def test_as_many_machines_as_memory_and_processors_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    many, few = slots.here().fitting(64 << 20), slots.here().fitting(1 << 30)
    assert many > few
    assert slots.here().fitting(1 << 50) == 1  # it is tried nevertheless
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert slots.here().fitting(64 << 20) == 1


def test_deadlines_stretch_with_the_crowd(monkeypatch: pytest.MonkeyPatch, paper_bench: Bench) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert slots.here().crowding(machines=1, cpus=2) == 1.0
    assert slots.here().crowding(machines=2, cpus=2) == 2.0
    monkeypatch.setattr("os.getloadavg", lambda: (6.0, 0.0, 0.0))
    assert slots.here().crowding(machines=1, cpus=2) == 4.0
    assert replace(paper_bench, crowding=4.0).time_scale == 4 * paper_bench.time_scale
