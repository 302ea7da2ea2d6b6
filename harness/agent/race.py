# SPDX-License-Identifier: GPL-2.0-or-later
"""Loops that go on while somebody else does something: what races are made of.

Each is one operation, so that no message has to pass between two of its steps. Stores are plain ones here:
one that faults ends the agent with SIGBUS, so these are for an agent that can be spared.
"""

from __future__ import annotations

import errno
import os
import time

from .files import File, allocate, memfd_create, punch_hole
from .pattern import PAGE, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WORD = 8


def poke(memory: File, offset: int, data: bytes) -> None:
    """Store bytes with the CPU's own instructions."""
    memory.mapping.view[offset : offset + len(data)] = data


def march(memory: File, first: int, count: int, counter: int, seed: int, by_read: bool = False) -> int:
    """Write the pattern to page after page, and store in the word at `counter` how many are done.

    by_read: have read(2) store them. Whatever the counter says was done before it said so.
    """
    view, source = memory.mapping.view, memfd_create(PAGE)
    for number in range(count):
        at, content = (first + number) * PAGE, page(seed, first + number)
        if by_read:
            os.pwrite(source.fd, content, 0)
            os.preadv(source.fd, [view[at : at + PAGE]], 0)
        else:
            view[at : at + PAGE] = content
        view[counter : counter + WORD] = (number + 1).to_bytes(WORD, "little")
    source.close()
    return count


def churn(file: File, offset: int, length: int, seconds: float) -> dict[str, int]:
    """Allocate and punch a range in turns; returns how many calls worked, and how many gave EPERM."""
    counts = {"done": 0, "refused": 0}
    end, actions = time.monotonic() + seconds, (allocate, punch_hole)
    while time.monotonic() < end:
        for action in actions:
            try:
                action(file, offset, length)
                counts["done"] += 1
            except OSError as error:
                if error.errno != errno.EPERM:
                    raise
                counts["refused"] += 1
    return counts


OPERATIONS: dict[str, Callable[..., object]] = {
    "poke": poke,
    "march": march,
    "churn": churn,
}
