# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a night is new: real databases, nights made by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.case import (
    Accelerator,
    AcceleratorChoice,
    Case,
    KernelDefinition,
    MachineSpec,
    Outcome,
    ScenarioResult,
    Verdict,
)
from harness.errors import InfraError
from harness.history import History, News, slowness
from harness.matrix.oracle import Owed
from harness.matrix.results import Result

KERNEL = KernelDefinition("linux", (), (), ())
Night = Callable[..., None]


def result(outcome: str, seconds: float = 5.0, accelerator: str = "tcg", value: float = 1.0) -> Result:
    """One cell of one scenario, with a measurement."""
    word = Outcome(outcome)
    reason = "" if word is Outcome.PASS else "page 3: zeroes"
    one = ScenarioResult("test_a.py::test_it", word, seconds, reason, measurements=(("preserve_ms", value),))
    choice = AcceleratorChoice(Accelerator(accelerator), "a test")
    verdict = Verdict(word, reason, Path("/run"), scenarios=(one,), choice=choice)
    case = Case(KERNEL, KERNEL, "minimal", MachineSpec(), ("test_a.py",))
    return Result("a>a/d/m/basic", "a > a", "basic", word, reason, Owed.WORK, "", seconds, case, verdict)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.sqlite")


def news(history: History, nights: Sequence[Result], name: str = "nightly") -> News:
    for one in nights:
        history.record(name, [one])
    found = history.news(name)
    assert found is not None
    return found


def outcomes(words: str) -> list[Result]:
    return [result({"p": "PASS", "f": "FAIL", "b": "BROKEN", "s": "SKIP"}[letter]) for letter in words]


@pytest.mark.parametrize(
    ("nights", "kind"),
    [
        ("ppf", "new"),
        ("ppff", "new"),  # since the last good night, however many there were since
        ("f", "new"),
        ("ppb", "new"),
        ("ff", "known"),  # there was never a good night
        ("ppp", ""),
        ("pppfp", "mended"),
        ("pfpf", "flaky"),
        ("ppfppf", "flaky"),
        ("pps", ""),
    ],
)
def test_what_a_failure_is(history: History, nights: str, kind: str) -> None:
    found = news(history, outcomes(nights))
    kinds = {"new": found.failures, "known": found.known, "flaky": found.flakes, "mended": found.mended}
    assert {name for name, some in kinds.items() if some} == ({kind} if kind else set())
    assert found.is_new is (kind == "new")


def test_a_flake_has_its_rate_and_a_new_failure_its_first_night(history: History) -> None:
    (flake,) = news(history, outcomes("ppfppppf")).flakes
    assert (flake.failed, flake.runs) == (2, 8)


def test_a_night_with_nothing_but_a_flake_is_a_good_one(history: History) -> None:
    assert news(history, outcomes("pfpfp")).good is not None


def test_figures_are_never_compared_across_accelerators(history: History) -> None:
    kvm = [result("PASS", value=1.0, accelerator="kvm") for _ in range(10)]
    found = news(history, [*kvm, result("PASS", value=50.0, accelerator="tcg")])
    assert found.slowdowns == ()
    found = news(history, [result("PASS", value=50.0, accelerator="kvm")])
    assert [one.figure for one in found.slowdowns] == ["preserve_ms"]


def test_a_slowdown_stands_out_of_noise_and_outliers(history: History) -> None:
    dice = random.Random(3)
    before = [result("PASS", value=dice.gauss(10.0, 0.5)) for _ in range(15)]
    before[4] = result("PASS", value=40.0)
    assert news(history, before).slowdowns == ()
    (found,) = news(history, [result("PASS", value=15.0)]).slowdowns
    assert found.usual == pytest.approx(10.0, abs=0.5)
    assert found.score > 3.5


def test_noise_alone_is_rarely_called_a_slowdown() -> None:
    dice, alarms = random.Random(5), 0
    for _ in range(1000):
        before = [dice.gauss(100.0, 10.0) for _ in range(20)]
        alarms += slowness(dice.gauss(100.0, 10.0), before) > 3.5
    assert alarms < 10


@pytest.mark.parametrize(
    ("value", "before"), [(20.0, [10.0] * 4), (10.9, [10.0] * 20), (9.0, [10.0] * 20), (5.0, [0.0] * 20)]
)
def test_what_says_nothing(value: float, before: list[float]) -> None:
    assert slowness(value, before) == 0.0


def test_a_refusal_that_is_owed_is_no_failure_of_its_scenarios(history: History) -> None:
    from dataclasses import replace

    refused = replace(result("FAIL"), outcome=Outcome.PASS, owed=Owed.PANIC)
    assert news(history, [refused]).failures == ()


def test_the_time_that_a_cell_takes_is_known_afterwards(history: History) -> None:
    assert history.expected_seconds("a>a/d/m/basic") is None
    news(history, [result("PASS", seconds) for seconds in (4.0, 5.0, 30.0)])
    assert history.expected_seconds("a>a/d/m/basic") == 5.0


def test_a_file_that_is_no_history_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no database, and longer than a header\n" * 40)
    with pytest.raises(InfraError, match="cannot use the history"):
        History(tmp_path / "file")
