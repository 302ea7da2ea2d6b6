# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels made to crash, each in its way: the material of tests/console-logs, and of nothing else.

    luh run --kernel linux-7.3-provoke ./tests/console-logs/provocations.py

Every scenario here fails, as it should. record.py makes logs of the consoles: a remark `provoke NAME` on a
console begins one. What needs a kernel with checks is skipped with others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import pytest

from harness import diagnosis, plugin
from harness.case import Bench
from harness.guest.errors import RemoteError
from harness.guest.session import Session

PROVOKE = "/sys/kernel/debug/provoke"
LKDTM = "/sys/kernel/debug/provoke-crash/DIRECT"
# The kernel writes to its console in a thread of its own, after what it says.
SPOKEN_SECONDS = 3.0
# How long a detector may take to see what it looks for, in seconds.
PATIENCE = 40.0

# After these the kernel goes on. Lower case: words of the series `provoke`; upper case: LKDTM's.
MILD = (
    *("warning", "warning_bare", "WARNING", "WARNING_MESSAGE", "REFCOUNT_INC_ZERO"),
    *("REFCOUNT_SUB_AND_TEST_NEGATIVE", "REFCOUNT_ADD_OVERFLOW", "schedule_atomic"),
)
# With the kernel linux-7.3-crash; lockdep speaks once and is silent for the rest of a boot.
CHECKED = (
    *("shift", "bool", "ARRAY_BOUNDS", "sleep_atomic", "kfence_write", "kfence_free"),
    *("KFENCE_READ_AFTER_FREE",),
)
LOCKS = (
    *("deadlock", "recursion", "inconsistent", "rcu_usage", "unbalanced", "held_freed"),
    *("lock_held",),
)
# With linux-7.3-crash-kasan.
KASAN = (
    *("use_after_free", "out_of_bounds", "double_free", "stack_bounds", "global_bounds"),
    *("vmalloc_bounds", "SLAB_LINEAR_OVERFLOW", "READ_AFTER_FREE"),
)
# These take the kernel with them.
DEADLY = (
    *("panic", "bug", "null", "noncanonical", "divide", "invalid_opcode", "double_fault"),
    *("triple_fault", "hang", "hang_all", "halt", "interrupt_oops", "PANIC", "BUG", "EXCEPTION"),
    *("EXHAUST_STACK", "STACK_GUARD_PAGE_LEADING", "EXEC_DATA", "EXEC_NULL", "WRITE_RO"),
    *("WRITE_KERN", "ACCESS_NULL", "PANIC_IN_HARDIRQ", "BUG_IN_HARDIRQ", "CORRUPT_STACK"),
    *("CORRUPT_LIST_ADD", "loop"),
)
# The same in the kernel after a kexec.
AFTER = (*("warning", "panic", "null", "triple_fault", "hang", "BUG", "EXHAUST_STACK"),)
# At moments of the next kernel's boot, and on the way there.
EARLY = (
    *("first:panic", "first:null", "first:triple_fault", "first:hang", "first:halt"),
    *("early:panic", "early:bug", "early:triple_fault", "late:null", "late:warning", "late:hang"),
)
BETWEEN = (*("next_digest", "next_start", "next_reboot"),)
# What detectors of linux-7.3-crash see after a while.
SLOW = (*("hung_thread", "HUNG_TASK", "rcu_stall", "SOFTLOCKUP", "HARDLOCKUP", "workqueue"),)


def mark(request: pytest.FixtureRequest, name: str) -> None:
    machine = request.node.stash[plugin.TRIAL].machine
    assert machine is not None
    machine.mark(f"provoke {name}")


def provoke(host: Session, word: str) -> None:
    host.files.put_text(LKDTM if word.isupper() else PROVOKE, word)


def needs(bench: Bench, option: str) -> None:
    if f"CONFIG_{option}=y" not in bench.kernel.config.read_text().splitlines():
        pytest.skip(f"this kernel has no CONFIG_{option}")


def each(host: Session, request: pytest.FixtureRequest, words: Sequence[str]) -> None:
    """One after the other in one boot, for as long as it lives."""
    for word in words:
        mark(request, word)
        with contextlib.suppress(RemoteError):
            provoke(host, word)
        time.sleep(SPOKEN_SECONDS)
    mark(request, "nothing more")


def test_mild(host: Session, request: pytest.FixtureRequest) -> None:
    each(host, request, MILD)


def test_checked(host: Session, request: pytest.FixtureRequest, bench: Bench) -> None:
    needs(bench, "KFENCE")
    each(host, request, CHECKED)


@pytest.mark.parametrize("word", LOCKS)
def test_locks(host: Session, request: pytest.FixtureRequest, bench: Bench, word: str) -> None:
    needs(bench, "PROVE_LOCKING")
    each(host, request, [word])


@pytest.mark.machine(kernel_parameters=("kasan_multi_shot",))
def test_kasan(host: Session, request: pytest.FixtureRequest, bench: Bench) -> None:
    needs(bench, "KASAN")
    each(host, request, KASAN)


@pytest.mark.machine(kernel_parameters=("kmemleak.verbose=1",))
def test_leak(host: Session, request: pytest.FixtureRequest, bench: Bench) -> None:
    needs(bench, "DEBUG_KMEMLEAK")
    host.call("leaks.find", host.deadline(PATIENCE, "kmemleak's scans"))
    mark(request, "leak")
    provoke(host, "leak")
    host.call("leaks.find", host.deadline(PATIENCE, "kmemleak's scans"))


@pytest.mark.parametrize("word", DEADLY)
def test_deadly(host: Session, request: pytest.FixtureRequest, word: str) -> None:
    mark(request, word)
    provoke(host, word)
    host.call("host.settle")


@pytest.mark.parametrize("word", AFTER)
def test_after_kexec(host: Session, request: pytest.FixtureRequest, word: str) -> None:
    host = host.live_update()
    mark(request, f"{word} after kexec")
    provoke(host, word)


@pytest.mark.parametrize("word", EARLY)
def test_early(host: Session, request: pytest.FixtureRequest, word: str) -> None:
    mark(request, f"{word.replace(':', ' ')} of the next kernel")
    host.kexec.load(command_line=f"{host.command_line} provoke={word}")
    host.kexec.reboot()


@pytest.mark.parametrize("word", BETWEEN)
def test_between(host: Session, request: pytest.FixtureRequest, word: str) -> None:
    host.kexec.load()
    provoke(host, word)
    mark(request, word)
    host.kexec.reboot()


@pytest.mark.machine(kernel_parameters=("init=/nowhere",))
def test_no_init(host: Session) -> None:
    raise AssertionError("must not be reached")


@pytest.mark.machine(kernel_parameters=("root=/dev/nowhere",))
def test_no_root(host: Session) -> None:
    raise AssertionError("must not be reached")


@pytest.mark.machine(kernel_parameters=("watchdog_thresh=3", "workqueue.watchdog_thresh=5"))
@pytest.mark.parametrize("word", SLOW)
def test_slow(host: Session, request: pytest.FixtureRequest, bench: Bench, word: str) -> None:
    needs(bench, "DETECT_HUNG_TASK")
    machine = request.node.stash[plugin.TRIAL].machine
    assert machine is not None
    child = host.spawn()
    mark(request, word)
    child.begin("files.put_text", path=LKDTM if word.isupper() else PROVOKE, text=word)
    until = host.deadline(PATIENCE, "a detector's report")
    while not until.expired and not machine.ended and not diagnosis.findings(machine):
        time.sleep(1.0)
    time.sleep(2.0)
