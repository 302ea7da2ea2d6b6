# SPDX-License-Identifier: GPL-2.0-or-later
"""How many runs it takes to call a candidate good or bad. Pure.

Two hypotheses with equal odds beforehand, since git halves: the candidate is like the bad end, or like the
good one. Of each we know how often it failed so far. Most scenarios do not wobble, so each hypothesis is a
mixture: with the weight STEADY a bad kernel always fails (a good one never does), and otherwise at a rate
of which nothing is known (uniform, so that the likelihood of f failures and p passes is the beta function's
B(f+1, p+1)). What is seen of either end changes weight and rate by Bayes' rule. Runs are repeated until the
odds of the wrong answer are small enough, a sequential test that may stop at any time because the odds hold
at each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEADY = 0.9


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something failed and passed."""

    fails: int = 0
    passes: int = 0

    @property
    def runs(self) -> int:
        return self.fails + self.passes

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.fails + other.fails, self.passes + other.passes)


def odds_of_good(seen: Tally, good: Tally, bad: Tally) -> float:
    """The probability that a candidate with the runs `seen` is good, given what the good and bad ones did."""
    as_good = _likelihood(seen, good, steady=good.fails == 0, fits=seen.fails == 0)
    as_bad = _likelihood(seen, bad, steady=bad.passes == 0, fits=seen.passes == 0)
    return as_good / (as_good + as_bad)


def per_turn(confidence: float, turns: int) -> float:
    """The odds of a wrong turn that so many turns can have each, for the whole to be right with
    `confidence`.
    """
    return float(1.0 - confidence ** (1.0 / max(1, turns)))


def _likelihood(seen: Tally, known: Tally, *, steady: bool, fits: bool) -> float:
    """Of `seen` after `known`. steady: `known` never wobbled; fits: nor did `seen`, in the same way."""
    wobbly_before = _marginal(known)
    weight = STEADY / (STEADY + (1 - STEADY) * wobbly_before) if steady else 0.0
    wobbly = math.exp(_log_marginal(known + seen) - _log_marginal(known))
    return weight * fits + (1 - weight) * wobbly


def _marginal(tally: Tally) -> float:
    return math.exp(_log_marginal(tally))


def _log_marginal(tally: Tally) -> float:
    """The logarithm of B(fails + 1, passes + 1)."""
    return math.lgamma(tally.fails + 1) + math.lgamma(tally.passes + 1) - math.lgamma(tally.runs + 2)
