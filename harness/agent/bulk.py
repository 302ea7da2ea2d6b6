# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done to many pages at once: by machine code (bulk.c) where it is there, else by Python.

An image and a bundle for other machines bring the machine code, because under emulation Python takes 280 us
for the pattern of a page. An agent that runs from its sources does without.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .libc import buffer, syscall
from .pattern import PAGE, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .files import Mapping

LOOKED_AT = 8192
LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libbulk.so")


def fill(mapping: Mapping, count: int, first: int, seed: int) -> None:
    """Write pages `first` to `first + count - 1` of the pattern to the start of a mapping."""
    if _library:
        _library.bulk_fill(*_arguments(mapping, 0, count, first, seed))
        return
    for number in range(count):
        mapping.view[number * PAGE : (number + 1) * PAGE] = page(seed, first + number)


def matching(mapping: Mapping, start: int, count: int, first: int, seed: int) -> int:
    """How many pages, from page `start` of a mapping on, hold the pattern before the first that does not."""
    if _library:
        return int(_library.bulk_matching(*_arguments(mapping, start, count, first, seed)))
    for number in range(count):
        at = (start + number) * PAGE
        if mapping.view[at : at + PAGE] != page(seed, first + number):
            return number
    return count


def presence(fd: int, first: int, count: int) -> bytes:
    """A byte for each page of a file: 1 where the page cache has it, else 0; touches nothing.

    b"" for more pages than are looked at one by one, and where there is no machine code for that.
    """
    if not _library or count > LOOKED_AT:
        return b""
    present = buffer(bytes(count))
    numbers = (ctypes.c_int(fd), ctypes.c_uint64(first), ctypes.c_uint64(count))
    if number := int(_library.bulk_presence(*numbers, present)):
        raise OSError(number, f"cachestat: {os.strerror(number)}")
    return present.raw


def cached_pages(fd: int, first: int, count: int) -> int:
    """How many pages of a range the page cache has (cachestat(2)).

    struct cachestat_range and struct cachestat of include/uapi/linux/mman.h; nr_cache comes first.
    """
    statistics = buffer(bytes(40))
    syscall("cachestat", fd, struct.pack("=QQ", first * PAGE, count * PAGE), statistics, 0)
    return int.from_bytes(statistics.raw[:8], "little")


def _arguments(mapping: Mapping, start: int, *numbers: int) -> list[ctypes.c_uint64]:
    return [ctypes.c_uint64(number) for number in (mapping.address + start * PAGE, *numbers)]


def load(path: str) -> ctypes.CDLL | None:
    """bulk.c as it was compiled to a file; None where there is none."""
    if not os.path.exists(path):
        return None
    library = ctypes.CDLL(path)
    library.bulk_matching.restype = ctypes.c_uint64
    return library


_library = load(LIBRARY)
