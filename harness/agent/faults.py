# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocations that fail on demand (Documentation/fault-injection/fault-injection.rst).

Of one thread: its n-th allocation fails, and no other, whoever else allocates (`call`). Of one slab cache:
the next allocations from it fail, whoever asks, which reaches the kernel's own workers (`fail_cache`).
"""

from __future__ import annotations

import os

from .host import DEBUGFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NTH = "/proc/thread-self/fail-nth"
# What would be left alone by default: allocations that may wait, that are a single page, or a user's.
EVERYTHING = {
    "failslab/ignore-gfp-wait": "N",
    "fail_page_alloc/ignore-gfp-wait": "N",
    "fail_page_alloc/ignore-gfp-highmem": "N",
    "fail_page_alloc/min-order": "0",
}
# 2: each failure is logged with its stack. The serial console makes that slow, but it says where.
VERBOSITY = ("failslab/verbose", "fail_page_alloc/verbose")

_left = 0


def prepare(verbose: int = 1) -> None:
    """Make every kind of allocation one that can fail. OSError where the kernel has no fault injection."""
    os.close(os.open(NTH, os.O_RDWR))
    for name, value in EVERYTHING.items():
        _set(name, value)
    for name in VERBOSITY:
        _set(name, str(verbose))


def call(function: str, nth: int, **arguments: object) -> object:
    """Perform another operation whose n-th allocation in this thread fails; 0 for none.

    Ends as that operation ends. `left` says afterwards whether there was an n-th allocation.
    """
    global _left
    from .__main__ import find

    operation = find(function)
    switch = os.open(NTH, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(switch, b"%d" % nth)
        try:
            return operation(**arguments)
        finally:
            _left = int(os.pread(switch, 16, 0))
            os.write(switch, b"0")
    finally:
        os.close(switch)


def left() -> int:
    """How many allocations of the last `call` were still to be let through: 0 if one was made to fail."""
    return _left


def fail_cache(cache: str, times: int) -> None:
    """The next so many allocations from a slab cache fail, in every task; 0 ends that.

    OSError EINVAL where the cache is one with others (see /sys/kernel/slab).
    """
    with open(f"/sys/kernel/slab/{cache}/failslab", "w") as file:
        file.write("1" if times else "0")
    _set("failslab/cache-filter", "Y" if times else "N")
    _set("failslab/times", str(times or 1))
    _set("failslab/probability", "100" if times else "0")


def cache_failures_left() -> int:
    """How many of the failures that `fail_cache` ordered have not come yet."""
    with open(f"{DEBUGFS}/failslab/times") as file:
        return int(file.read())


def _set(name: str, value: str) -> None:
    with open(f"{DEBUGFS}/{name}", "w") as file:
        file.write(value)


OPERATIONS: dict[str, Callable[..., object]] = {
    "prepare": prepare,
    "call": call,
    "left": left,
    "fail_cache": fail_cache,
    "cache_failures_left": cache_failures_left,
}
