# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocations that fail on demand (Documentation/fault-injection/fault-injection.rst).

Of one thread: its n-th allocation fails, and no other, whoever else allocates (`call`). Of the
kernel's own threads, which nobody can count for: the next ones in one function (`fail_below`).
"""

from __future__ import annotations

import errno
import os

from .host import DEBUGFS, text

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


def fail_below(function: str, times: int, kernel: bool = True) -> None:
    """The next so many slab allocations in that function fail; 0 ends that.

    kernel: those of the kernel's own threads, else this thread's. Never everybody's everywhere: a kernel that
    cannot start a worker stands still, and a program whose pages cannot come back faults for ever.
    """
    start, end = _addresses(function) if times else (0, (1 << 64) - 1)
    if times:
        _mark(os.getpid(), not kernel)
        for task in _kernel_threads():
            _mark(task, kernel)
    for name, value in (
        ("probability", "0"),
        ("require-start", hex(start)),
        ("require-end", hex(end)),
        ("task-filter", "Y" if times else "N"),
        ("times", str(times or 1)),
        ("probability", "100" if times else "0"),
    ):
        _set(f"failslab/{name}", value)


def failures_left() -> int:
    """How many of the failures that `fail_below` ordered have not come yet."""
    return int(text(f"{DEBUGFS}/failslab/times"))


def _addresses(function: str) -> tuple[int, int]:
    """Where a kernel function begins and where the next one does."""
    start, found = 0, []
    with open("/proc/kallsyms", encoding="utf-8") as file:
        for line in file:
            address, kind, name = line.split()[:3]
            if kind in "tT":
                found.append(int(address, 16))
                if name == function:
                    start = found[-1]
    if not start:
        raise OSError(errno.ENOENT, f"the kernel has no function {function}")
    return start, min(address for address in found if address > start)


def _kernel_threads() -> list[int]:
    """kthreadd, whose future children inherit its mark, and all that it has."""
    found = [2]
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            if parent == 2:
                found.append(int(name))
    return found


def _mark(task: int, fails: bool) -> None:
    try:
        with open(f"/proc/{task}/make-it-fail", "w") as file:
            file.write("1" if fails else "0")
    except OSError:
        if os.path.exists(f"/proc/{task}"):
            raise


def _set(name: str, value: str) -> None:
    with open(f"{DEBUGFS}/{name}", "w") as file:
        file.write(value)


OPERATIONS: dict[str, Callable[..., object]] = {
    "prepare": prepare,
    "call": call,
    "left": left,
    "fail_below": fail_below,
    "failures_left": failures_left,
}
