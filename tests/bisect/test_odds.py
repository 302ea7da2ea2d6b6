# SPDX-License-Identifier: GPL-2.0-or-later
"""How many runs an answer takes, and that it is right as often as is promised."""

from __future__ import annotations

import random

import pytest

from harness.bisect.odds import Tally, odds_of_good, per_turn

STEADY_BAD, STEADY_GOOD = Tally(fails=3), Tally(passes=3)


def runs_until(allowed: float, good: Tally, bad: Tally, *, fail: bool) -> int:
    seen = Tally()
    while True:
        seen += Tally(fails=int(fail), passes=int(not fail))
        odds = odds_of_good(seen, good, bad)
        if min(odds, 1 - odds) <= allowed:
            return seen.runs


def test_a_steady_scenario_takes_few_runs_and_fewer_the_more_is_known() -> None:
    assert runs_until(0.01, STEADY_GOOD, STEADY_BAD, fail=False) == 1
    assert runs_until(0.01, STEADY_GOOD, STEADY_BAD, fail=True) == 1
    assert runs_until(0.001, STEADY_GOOD, STEADY_BAD, fail=False) == 3
    assert runs_until(0.001, Tally(passes=20), Tally(fails=20), fail=False) == 1


def test_a_pass_of_what_fails_one_time_in_three_says_little_and_a_failure_says_all() -> None:
    flaky = Tally(fails=5, passes=10)
    assert runs_until(0.01, Tally(passes=20), flaky, fail=False) > 9
    assert runs_until(0.01, Tally(passes=20), flaky, fail=True) == 1


def test_a_good_end_that_fails_too_makes_failures_say_less() -> None:
    background, bad = Tally(fails=2, passes=18), Tally(fails=18, passes=2)
    assert runs_until(0.01, background, bad, fail=True) > 1
    assert runs_until(0.01, background, bad, fail=False) > 1


def test_the_odds_are_those_of_the_answers(seed: int = 7) -> None:
    """Of many searches' turns with a real flake, no more are wrong than was allowed."""
    dice, allowed, wrong, turns = random.Random(seed), 0.02, 0, 2000
    good, bad = Tally(passes=30), Tally(fails=10, passes=20)
    for _ in range(turns):
        is_good, seen = dice.random() < 0.5, Tally()
        rate = dice.betavariate(bad.fails + 1, bad.passes + 1)
        while True:
            fails = not is_good and dice.random() < rate
            seen += Tally(fails=int(fails), passes=int(not fails))
            odds = odds_of_good(seen, good, bad)
            if min(odds, 1 - odds) <= allowed:
                break
        wrong += (odds > 0.5) is not is_good
    assert wrong / turns < 2 * allowed
    assert wrong > 0


@pytest.mark.parametrize("turns", [1, 5, 14])
def test_the_turns_together_are_as_sure_as_was_asked_for(turns: int) -> None:
    assert (1 - per_turn(0.99, turns)) ** turns == pytest.approx(0.99)
