# SPDX-License-Identifier: GPL-2.0-or-later
"""ddmin: the smallest set of changes that makes a difference. Pure.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (IEEE TSE 28(2), 2002): halves,
quarters, ... are tried alone, then their complements; what comes out is 1-minimal, so that no single change
can be left out of it. A set that cannot be judged counts as one that makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def minimize(changes: Sequence[T], makes_it: Callable[[Sequence[T]], bool]) -> list[T]:
    """A 1-minimal subset of the changes for which `makes_it` still holds, in their order.

    It has to hold for all of them and not for none. No set is asked about twice.
    """
    asked: dict[tuple[T, ...], bool] = {}

    def holds(some: Sequence[T]) -> bool:
        key = tuple(some)
        if key not in asked:
            asked[key] = makes_it(some)
        return asked[key]

    left, parts = list(changes), 2
    while len(left) >= 2:
        chunks = _split(left, parts)
        smaller = next((chunk for chunk in chunks if holds(chunk)), None)
        if smaller is not None:
            left, parts = smaller, 2
            continue
        rests = ([one for one in left if one not in chunk] for chunk in chunks) if parts > 2 else ()
        smaller = next((rest for rest in rests if holds(rest)), None)
        if smaller is not None:
            left, parts = smaller, max(parts - 1, 2)
        elif parts >= len(left):
            break
        else:
            parts = min(2 * parts, len(left))
    return left


def _split(items: list[T], parts: int) -> list[list[T]]:
    """In so many runs of about the same length."""
    edges = [round(number * len(items) / parts) for number in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(edges) if end > start]
