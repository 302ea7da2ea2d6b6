# SPDX-License-Identifier: GPL-2.0-or-later
"""The pattern for many pages at once: by machine code (pattern.c) where it is there, else by pattern.py.

An image and a bundle for other machines bring the machine code; under emulation it takes a twentieth of the
time. An agent that runs from its sources does without.
"""

from __future__ import annotations

import ctypes
import os

from .pattern import PAGE, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .files import Mapping

LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libpattern.so")


def fill(mapping: Mapping, count: int, first: int, seed: int) -> None:
    """Write pages `first` to `first + count - 1` of the pattern to the start of a mapping."""
    if _library:
        _library.pattern_fill(*_arguments(mapping, 0, count, first, seed))
        return
    for number in range(count):
        mapping.view[number * PAGE : (number + 1) * PAGE] = page(seed, first + number)


def matching(mapping: Mapping, start: int, count: int, first: int, seed: int) -> int:
    """How many pages, from page `start` of a mapping on, hold the pattern before the first that does not."""
    if _library:
        return int(_library.pattern_count(*_arguments(mapping, start, count, first, seed)))
    for number in range(count):
        at = (start + number) * PAGE
        if mapping.view[at : at + PAGE] != page(seed, first + number):
            return number
    return count


def _arguments(mapping: Mapping, start: int, *numbers: int) -> list[ctypes.c_uint64]:
    return [ctypes.c_uint64(number) for number in (mapping.address + start * PAGE, *numbers)]


def load(path: str) -> ctypes.CDLL | None:
    """pattern.c as it was compiled to a file; None where there is none."""
    if not os.path.exists(path):
        return None
    library = ctypes.CDLL(path)
    library.pattern_count.restype = ctypes.c_uint64
    return library


_library = load(LIBRARY)
