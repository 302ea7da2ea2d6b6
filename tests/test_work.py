# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that waits for scenarios: it says nothing, keeps nothing, and goes when it is not wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.boot import AHEAD, Boot
from harness.case import Bench, Outcome
from harness.crew import hired
from harness.exchange import Collected, Ended, Event
from harness.guest.journal import Journal
from harness.hand import ready
from harness.layout import Layout

SECONDS = 30.0
Run = Callable[[str], list[tuple[float, Event]]]


@pytest.fixture
def snapshot(paper_bench: Bench, tmp_path: Path, standin: Callable[..., None]) -> Bench:
    """A bench whose hosts have a snapshot to start from."""
    bench = replace(paper_bench, snapshots=tmp_path / "store", directory=tmp_path / "first")
    with Boot(bench, Journal(), lambda step: None, lambda remark: None, lambda machine: None).host():
        return replace(bench, directory=paper_bench.directory)


@pytest.fixture
def run(snapshot: Bench, write_scenario: Callable[[str], Path]) -> Run:
    """Runs scenarios in a process that was there before; what it told, and when on the attempt's clock."""

    def run(body: str) -> list[tuple[float, Event]]:
        events: list[tuple[float, Event]] = []
        began, layout, nodes = time.monotonic(), Layout.here(), (str(write_scenario(body)),)
        with ready(layout) as hand:
            with hired(nodes, layout, snapshot.directory, began, hand=hand) as crew:
                crew.begin(snapshot)
                crew.follow(snapshot, lambda event: events.append((time.monotonic() - began, event)))
            assert hand.process.poll() is not None
        return events

    return run


def test_process_without_orders_ends_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with ready(Layout.here()) as hand:
        hand.line.close()
        assert hand.process.wait(SECONDS) == 0
    assert capfd.readouterr() == ("", "")


def test_process_that_cannot_start_says_why(
    paper_bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness/__init__.py").write_text("raise ImportError('half of it is missing')\n")
    with ready(Layout(tmp_path)) as hand:
        hand.process.wait(SECONDS)
        with hired(("basic",), Layout.here(), paper_bench.directory, time.monotonic(), hand=hand) as crew:
            crew.begin(paper_bench)
            assert crew.follow(paper_bench, print) == 1
    assert "half of it is missing" in capfd.readouterr().err


def test_first_scenario_has_the_host_that_was_started_before_it(run: Run, snapshot: Bench) -> None:
    events = run("def test_a(host): pass\ndef test_b(host): pass\n")
    (collected,) = (at for at, event in events if isinstance(event, Collected))
    first, second = (event.result for _, event in events if isinstance(event, Ended))
    assert first.outcome is second.outcome is Outcome.PASS
    assert first.phases[0].start < collected < second.phases[0].start
    assert all((snapshot.directory / one.traces / "console.log").is_file() for one in (first, second))
    assert not (snapshot.directory / AHEAD).exists()


def test_host_that_no_scenario_wants_leaves_nothing(run: Run, snapshot: Bench) -> None:
    (result,) = (event.result for _, event in run("def test_a(seed): pass\n") if isinstance(event, Ended))
    assert result.outcome is Outcome.PASS
    assert not (snapshot.directory / AHEAD).exists()
