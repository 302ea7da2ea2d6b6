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
class Checked:
    """A scenario that checks a rule. outcome: of the last run that had it, None if none is known."""

    scenario: str
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the contract. text: what it says, in one line."""

    name: str
    text: str
    scenarios: tuple[Checked, ...]

    @property
    def verdict(self) -> str:
        """The worst of its scenarios' last outcomes, in a word or two."""
        outcomes = [one.outcome for one in self.scenarios if one.outcome]
        if not self.scenarios:
            return NOBODY
        return max(outcomes, key=SEVERITY.index).value if outcomes else NEVER


def coverage(
    contract: Mapping[str, str], scenarios: Iterable[Scenario], outcomes: Mapping[str, Outcome]
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


def last_outcomes(runs: Path) -> dict[str, Outcome]:
    """By scenario, without parameters: the worst outcome in the latest run below `runs` that had it."""
    found: dict[str, Outcome] = {}
    for document in sorted(runs.glob("*Z-*/result.json"), reverse=True):
        for name, outcome in _outcomes(document).items():
            found.setdefault(name, outcome)
    return found


def _outcomes(document: Path) -> dict[str, Outcome]:
    """Those of one run; none of a run whose result is not there as a whole."""
    try:
        results = json.loads(document.read_text(encoding="utf-8"))["scenarios"]
    except (OSError, ValueError, KeyError):
        return {}
    worst: dict[str, Outcome] = {}
    for result in results:
        name, outcome = result["name"].partition("[")[0], Outcome(result["outcome"])
        worst[name] = max(worst.get(name, outcome), outcome, key=SEVERITY.index)
    return worst


def rows(rules: Sequence[Rule]) -> list[tuple[str, str, str]]:
    """For a table: rule, last verdict, scenarios."""
    return [
        (rule.name, rule.verdict, ", ".join(one.scenario.partition("::")[2] for one in rule.scenarios))
        for rule in rules
    ]


def to_json(rules: Sequence[Rule]) -> str:
    """A list of {rule, text, verdict, scenarios: [{name, outcome}]}; an outcome can be null."""
    return json.dumps(
        [
            {
                "rule": rule.name,
                "text": rule.text,
                "verdict": rule.verdict,
                "scenarios": [{"name": one.scenario, "outcome": one.outcome} for one in rule.scenarios],
            }
            for rule in rules
        ],
        indent=2,
    )
