# SPDX-License-Identifier: GPL-2.0-or-later
"""ddmin finds what cannot be left out, in few questions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.bisect.minimize import minimize


@pytest.mark.parametrize("needed", [{5}, {0, 31}, {3, 4, 20}, set(range(8))])
def test_it_finds_exactly_what_is_needed(needed: set[int]) -> None:
    asked: list[tuple[int, ...]] = []

    def makes_it(some: Sequence[int]) -> bool:
        asked.append(tuple(some))
        return needed <= set(some)

    assert set(minimize(range(32), makes_it)) == needed
    assert len(asked) == len(set(asked))


def test_one_of_many_takes_as_many_questions_as_halving() -> None:
    asked: list[int] = []

    def makes_it(some: Sequence[int]) -> bool:
        asked.append(len(some))
        return 700 in some

    assert minimize(range(1024), makes_it) == [700]
    assert len(asked) <= 20


def test_alternatives_give_one_of_them() -> None:
    assert len(minimize(range(16), lambda some: 3 in some or 12 in some)) == 1
