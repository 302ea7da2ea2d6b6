# SPDX-License-Identifier: GPL-2.0-or-later
"""Rule -> scenarios -> last verdict: what of the contract is checked at all, and what came of it last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.case import Outcome
from harness.scenarios import Scenario

NOBODY = "no scenario"
NEVER = "not run"
# From what counts least to what weighs most, of the parameters of a scenario and the scenarios of a rule.
SEVERITY = (Outcome.SKIP, Outcome.PASS, Outcome.FAIL, Outcome.BROKEN)


@dataclass(frozen=True, slots=True)
class Last:
    """What came of a scenario in the last run that says something about it: the worst of its parameters.

    skipped: why it, or some of its parameters, did not run there; "" where all did.
    """

    outcome: Outcome
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A scenario that checks a rule. last: None if no run is known that had it."""

    scenario: str
    last: Last | None

    @property
    def outcome(self) -> Outcome | None:
        return self.last.outcome if self.last else None

    @property
    def skipped(self) -> str:
        return self.last.skipped if self.last else ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the contract. text: what it says, in one line."""

    name: str
    text: str
    scenarios: tuple[Checked, ...]

    @property
    def verdict(self) -> str:
        """The worst of its scenarios' last outcomes, and how many of them say nothing: "PASS, 1 skipped"."""
        if not self.scenarios:
            return NOBODY
        outcomes = [one.outcome for one in self.scenarios if one.outcome]
        if not outcomes:
            return NEVER
        worst = max(outcomes, key=SEVERITY.index)
        skipped = 0 if worst is Outcome.SKIP else sum(bool(one.skipped) for one in self.scenarios)
        never = len(self.scenarios) - len(outcomes)
        said = [worst.value, f"{skipped} skipped" if skipped else "", f"{never} {NEVER}" if never else ""]
        return ", ".join(filter(None, said))


def coverage(
    contract: Mapping[str, str], scenarios: Iterable[Scenario], outcomes: Mapping[str, Last]
) -> tuple[Rule, ...]:
    """Every rule in the contract's order, with the scenarios that name it."""
    known = tuple(scenarios)
    return tuple(
        Rule(
            name,
            text,
            tuple(Checked(one.name, outcomes.get(one.name)) for one in known if name in one.rules),
        )
        for name, text in contract.items()
    )


def last_outcomes(runs: Path) -> dict[str, Last]:
    """By scenario, without parameters: what came of it in the latest run below `runs` that had it.

    A run where it was skipped as a whole says nothing, so an earlier one counts where there is one.
    """
    found: dict[str, Last] = {}
    for document in sorted(runs.glob("*Z-*/result.json"), reverse=True):
        for name, last in _outcomes(document).items():
            if name not in found or found[name].outcome is Outcome.SKIP is not last.outcome:
                found[name] = last
    return found


def _outcomes(document: Path) -> dict[str, Last]:
    """Those of one run; none of a run whose result is not there as a whole."""
    try:
        results = json.loads(document.read_text(encoding="utf-8"))["scenarios"]
    except (OSError, ValueError, KeyError):
        return {}
    worst: dict[str, Last] = {}
    for result in results:
        name, outcome = result["name"].partition("[")[0], Outcome(result["outcome"])
        reason = result.get("reason", "") if outcome is Outcome.SKIP else ""
        before = worst.get(name, Last(outcome))
        worst[name] = Last(max(before.outcome, outcome, key=SEVERITY.index), before.skipped or reason)
    return worst


def rows(rules: Sequence[Rule]) -> list[tuple[str, str, str]]:
    """For a table: rule, last verdict, scenarios."""
    return [(rule.name, rule.verdict, ", ".join(map(_name, rule.scenarios))) for rule in rules]


def skips(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """For a table: scenarios that were skipped, as a whole or in part, and why."""
    checked = (one for rule in rules for one in rule.scenarios if one.skipped)
    return sorted({(_name(one), one.skipped) for one in checked})


def _name(checked: Checked) -> str:
    return checked.scenario.partition("::")[2]


def to_json(rules: Sequence[Rule]) -> str:
    """A list of {rule, text, verdict, scenarios: [{name, outcome, skipped}]}; an outcome can be null."""
    return json.dumps(
        [
            {
                "rule": rule.name,
                "text": rule.text,
                "verdict": rule.verdict,
                "scenarios": [
                    {"name": one.scenario, "outcome": one.outcome, "skipped": one.skipped}
                    for one in rule.scenarios
                ],
            }
            for rule in rules
        ],
        indent=2,
    )
