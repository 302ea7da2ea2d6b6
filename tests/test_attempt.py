# SPDX-License-Identifier: GPL-2.0-or-later
"""What an attempt makes of its stages: phases on one clock, and a verdict whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import attempt, crew
from harness.case import Attempt, Case, MachineSpec, Outcome, ScenarioResult, Update, Verdict
from harness.errors import BuildError, HarnessError, InfraError, UsageError
from harness.kernel.definition import load
from harness.layout import Layout
from harness.store import Store


@pytest.fixture
def updates() -> list[Update]:
    return []


@pytest.fixture
def tried(small_store: Store, tmp_path: Path, updates: list[Update], standin: object) -> Attempt:
    return attempt.make(
        layout=Layout.here(), store=small_store, runs=tmp_path / "runs", progress=updates.append
    )


@pytest.fixture
def case(tiny_kernel: Path, write_scenario: Callable[[str], Path]) -> Case:
    layout = Layout.here()
    kernel = load(str(tiny_kernel), configs=layout.configs, patches=layout.patches)
    own = write_scenario("def test_it(host):\n    host.files.memfd(4096).fill(seed=1)\n")
    return Case(kernel, kernel, "minimal", MachineSpec(), (str(own),))


def test_whole_way_to_a_verdict(tried: Attempt, case: Case, updates: list[Update]) -> None:
    verdict = tried(case)
    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, "")
    assert [result.name for result in verdict.scenarios] == ["test_own.py::test_it"]
    assert verdict.kernel == verdict.next_kernel
    assert verdict.choice is not None
    assert (verdict.directory / "bench.json").is_file()
    assert "digest: " in (verdict.directory / "trees/tiny/tree.txt").read_text()
    phases = {phase.name: phase for phase in verdict.phases}
    assert list(phases) == ["machine", "source", "series", "config", "build", "image", "scenarios"]
    starts = [phase.start for phase in verdict.phases]
    assert starts == sorted(starts)
    _, boot = verdict.scenarios[0].phases  # before it, the snapshot that it started from
    within = phases["scenarios"]
    assert within.start < boot.start < boot.start + boot.seconds < within.start + within.seconds
    ended = [update.phase for update in updates if update.finished]
    assert ended == ["machine", "source", "series", "config", "build", "image", "test_it"]


def test_kernel_that_cannot_be_built_is_a_fail_with_the_stage_s_words(
    tried: Attempt, case: Case, tmp_path: Path, updates: list[Update]
) -> None:
    fragment = tmp_path / "wrong.config"
    fragment.write_text("CONFIG_NO_SUCH_THING=y\n")
    wrong = replace(case.kernel, fragments=(*case.kernel.fragments, fragment))
    verdict = tried(replace(case, kernel=wrong, next_kernel=wrong))
    assert verdict.outcome is Outcome.FAIL
    assert "CONFIG_NO_SUCH_THING" in verdict.reason
    assert (verdict.kernel, verdict.scenarios) == (None, ())
    assert [phase.name for phase in verdict.phases][-1] == "config"
    last = updates[-1]
    assert (last.phase, last.finished, last.outcome) == ("config", True, Outcome.FAIL)


def test_two_kernels_are_built_one_after_the_other(tried: Attempt, case: Case) -> None:
    verdict = tried(replace(case, next_kernel=replace(case.kernel, name="other")))
    assert verdict.outcome is Outcome.PASS
    assert verdict.kernel is not None
    assert verdict.next_kernel is not None
    assert (verdict.kernel.name, verdict.next_kernel.name) == ("tiny", "other")
    assert [phase.name for phase in verdict.phases].count("build") == 1


@pytest.mark.parametrize(
    ("node", "said"), [("::test_no", "no such scenario"), ("::test_it[x]", "no such scenario")]
)
def test_scenario_that_is_not_there_is_the_user_s_mistake_and_leaves_nothing(
    tried: Attempt, case: Case, tmp_path: Path, node: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        tried(replace(case, scenarios=(case.scenarios[0] + node,)))
    assert list((tmp_path / "runs").iterdir()) == []


def test_file_that_is_no_scenario_is_the_user_s_mistake(
    tried: Attempt, case: Case, write_scenario: Callable[[str], Path]
) -> None:
    write_scenario("import no_such_module\n")
    with pytest.raises(UsageError, match=r"test_own.py") as caught:
        tried(case)
    assert "no_such_module" in caught.value.detail


def test_process_that_dies_is_broken_and_what_ended_before_counts(
    tried: Attempt, case: Case, write_scenario: Callable[[str], Path]
) -> None:
    write_scenario(
        "import os\ndef test_a(host): pass\ndef test_b(host): os._exit(7)\ndef test_c(host): pass\n"
    )
    verdict = tried(case)
    assert verdict.outcome is Outcome.BROKEN
    assert verdict.reason == "the scenarios' process ended early, with status 7"
    assert [result.outcome for result in verdict.scenarios] == [Outcome.PASS]


def test_process_that_falls_silent_is_ended(
    tried: Attempt, case: Case, write_scenario: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "SILENCE_SECONDS", 0.3)
    write_scenario("import time\ndef test_a(): time.sleep(3600)\n")
    verdict = tried(case)
    assert verdict.outcome is Outcome.BROKEN
    assert "said nothing" in verdict.reason


@pytest.mark.parametrize(
    ("outcomes", "together"),
    [
        ("PASS PASS", "PASS"),
        ("SKIP PASS", "PASS"),
        ("SKIP SKIP", "SKIP"),
        ("PASS FAIL SKIP", "FAIL"),
        ("FAIL BROKEN PASS", "BROKEN"),
    ],
)
def test_the_worst_outcome_wins(outcomes: str, together: str) -> None:
    results = tuple(ScenarioResult("a", Outcome(word), 0.0) for word in outcomes.split())
    assert attempt.worst(results) is Outcome(together)


@pytest.mark.parametrize(
    ("error", "outcome"), [(BuildError("x"), Outcome.FAIL), (InfraError("x"), Outcome.BROKEN)]
)
def test_whose_fault_a_stage_s_error_is(error: HarnessError, outcome: Outcome) -> None:
    assert attempt.outcome_of(error) is outcome


def test_verdict_of_nothing_but_skips_says_why(
    tried: Attempt, case: Case, write_scenario: Callable[[str], Path]
) -> None:
    write_scenario("def test_a():\n    pytest.skip('there is no such VM')\n")
    verdict: Verdict = tried(case)
    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, "there is no such VM")
