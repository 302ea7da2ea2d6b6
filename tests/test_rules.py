# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rules are checked, and what came of it last."""

from __future__ import annotations

import json
from pathlib import Path

from harness import rules
from harness.case import Outcome
from harness.layout import Layout
from harness.scenarios import Scenario, catalogue
from harness.scenarios import rules as contract

SCENARIOS = (
    Scenario(Path("test_a.py"), "test_one", "", ("K1", "K2")),
    Scenario(Path("test_a.py"), "test_two", "", ("K1",)),
)
CONTRACT = {"K1": "first", "K2": "second", "K3": "third"}


def write(runs: Path, name: str, **outcomes: str) -> None:
    (runs / name).mkdir()
    scenarios = [
        {
            "name": f"test_a.py::{key}",
            "outcome": value,
            "reason": "needs KVM as a module" if value == "SKIP" else "",
        }
        for key, value in outcomes.items()
    ]
    (runs / name / "result.json").write_text(json.dumps({"scenarios": scenarios}))


def test_the_latest_run_of_a_scenario_counts_and_the_worst_of_its_parameters(tmp_path: Path) -> None:
    write(tmp_path, "20260101T000000Z-aaaa", test_one="FAIL", test_two="PASS")
    write(tmp_path, "20260102T000000Z-aaaa", **{"test_one[x]": "PASS", "test_one[y]": "SKIP"})
    (tmp_path / "20260103T000000Z-aaaa").mkdir()
    (tmp_path / "20260103T000000Z-aaaa" / "result.json").write_text("{")
    found = rules.last_outcomes(tmp_path)
    assert found == {
        "test_a.py::test_one": rules.Last(Outcome.PASS, "needs KVM as a module"),
        "test_a.py::test_two": rules.Last(Outcome.PASS),
    }


def test_a_run_that_skipped_a_scenario_does_not_hide_one_that_ran_it(tmp_path: Path) -> None:
    write(tmp_path, "20260101T000000Z-aaaa", test_one="PASS", test_two="SKIP")
    write(tmp_path, "20260102T000000Z-aaaa", test_one="SKIP", test_two="SKIP")
    found = rules.last_outcomes(tmp_path)
    assert found["test_a.py::test_one"] == rules.Last(Outcome.PASS)
    assert found["test_a.py::test_two"] == rules.Last(Outcome.SKIP, "needs KVM as a module")


def test_a_rule_has_the_worst_verdict_and_one_without_scenarios_shows() -> None:
    outcomes = {
        "test_a.py::test_one": rules.Last(Outcome.PASS),
        "test_a.py::test_two": rules.Last(Outcome.FAIL),
    }
    first, second, third = rules.coverage(CONTRACT, SCENARIOS, outcomes)
    assert (first.verdict, second.verdict, third.verdict) == ("FAIL", "PASS", "no scenario")
    assert rules.rows((first,)) == [("K1", "FAIL", "test_one, test_two")]
    document = json.loads(rules.to_json((second, third)))
    passed = {"name": "test_a.py::test_one", "outcome": "PASS", "skipped": ""}
    assert document[0]["scenarios"] == [passed]
    assert document[1] == {"rule": "K3", "text": "third", "verdict": "no scenario", "scenarios": []}
    assert rules.coverage(CONTRACT, SCENARIOS, {})[0].verdict == "not run"


def test_what_was_skipped_shows_beside_a_pass(tmp_path: Path) -> None:
    outcomes = {
        "test_a.py::test_one": rules.Last(Outcome.PASS),
        "test_a.py::test_two": rules.Last(Outcome.SKIP, "needs KVM as a module"),
    }
    covered = rules.coverage(CONTRACT, SCENARIOS, outcomes)
    assert [rule.verdict for rule in covered] == ["PASS, 1 skipped", "PASS", "no scenario"]
    assert rules.skips(covered) == [("test_two", "needs KVM as a module")]
    del outcomes["test_a.py::test_one"]
    assert rules.coverage(CONTRACT, SCENARIOS, outcomes)[0].verdict == "SKIP, 1 not run"


def test_every_rule_of_the_contract_has_a_scenario() -> None:
    layout = Layout.here()
    covered = rules.coverage(contract(layout.contract), catalogue(layout.scenarios), {})
    assert [rule.name for rule in covered if not rule.scenarios] == []
