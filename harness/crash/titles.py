# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report is called: its function and its kind, without addresses, as syzkaller titles reports.

The kernel's own words: lib/bug.c, kernel/panic.c, mm/kasan/report.c, mm/kfence/report.c, mm/kmemleak.c,
mm/usercopy.c, mm/slub.c, lib/ubsan.c, kernel/hung_task.c, kernel/watchdog.c, kernel/workqueue.c,
kernel/rcu/tree_stall.h, kernel/locking/lockdep.c, kernel/sched/core.c, arch/x86/kernel/traps.c,
arch/x86/kernel/dumpstack.c and arch/x86/mm/fault.c. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.crash.frames import SYMBOL, culprit, plain


@dataclass(frozen=True, slots=True)
class Format:
    """One way in which the kernel begins a report.

    start: a pattern of its first line, without time and caller, which is compiled when a line may be one; a
    kernel that reports nothing waits for none. title: with %s for the function, %a for "Read" or
    "Write" where the report says so, and the start's groups. look: where the function is found (frames.py).
    """

    kind: str
    start: str
    title: str
    look: tuple[str, ...]


def _format(kind: str, start: str, title: str, look: str = "rip trace") -> Format:
    return Format(kind, start, title, tuple(look.split()))


_FAULT = "BUG: unable to handle kernel"
_LOCKING = (
    "suspicious RCU usage|bad unlock balance|held lock freed|lock held when returning to user space"
    "|Nested lock was not taken|bad contention|locking bug"
)
_DEADLOCK = (
    r"WARNING: (?:possible (?:circular|recursive) locking|possible irq lock inversion"
    r"|[\w-]+-safe -> [\w-]+-unsafe lock order)"
)
_WARNING = r"WARNING: (?:CPU: \d+ PID: \d+ )?(?:at )?"
_STALL = r"rcu: INFO: \w+ (?:self-detected stall|detected stalls|detected expedited stalls)"
_ATOMIC = "sleeping function called from invalid context|scheduling while atomic"

FORMATS: tuple[Format, ...] = (
    _format("panic", r"Kernel panic - not syncing: (?P<text>.*)", r"panic: \g<text>", ""),
    _format(
        "kasan",
        rf"BUG: KASAN: (?P<text>[\w -]+) in (?P<function>{SYMBOL})",
        r"KASAN: \g<text>%a in %s",
        "line trace",
    ),
    _format("kasan", r"KASAN: (?P<text>[\w -]+) in range", r"KASAN: \g<text> in %s", "rip trace"),
    _format(
        "kfence",
        rf"BUG: KFENCE: (?P<text>[\w -]+) in (?P<function>{SYMBOL})",
        r"KFENCE: \g<text> in %s",
        "line trace",
    ),
    _format("kmemleak", r"(?:kmemleak: )?unreferenced object (?:percpu )?0x", "memory leak in %s", "trace"),
    _format("lockdep", _DEADLOCK, "possible deadlock in %s", "at trace"),
    _format("lockdep", r"WARNING: inconsistent lock state", "inconsistent lock state in %s", "at trace"),
    _format("lockdep", rf"WARNING: (?P<text>{_LOCKING})", r"WARNING: \g<text> in %s", "trace at"),
    _format("lockdep", r"\[ BUG: Invalid wait context \]", "BUG: invalid wait context in %s", "at trace"),
    _format("lockdep", r"BUG: (?P<text>MAX_\w+) too low!", r"BUG: \g<text> too low", ""),
    _format("lockup", r"watchdog: BUG: soft lockup - CPU#\d+ stuck", "BUG: soft lockup in %s"),
    _format(
        "lockup",
        r".*Watchdog detected hard LOCKUP|.*CPU\d+: Watchdog detected hard",
        "BUG: hard lockup in %s",
    ),
    _format("lockup", r"BUG: workqueue lockup", "BUG: workqueue lockup in %s", "work trace"),
    _format("stall", _STALL, "INFO: rcu detected stall in %s"),
    _format(
        "hung", r"INFO: task .{1,40} blocked (?:in I/O wait )?for more than", "INFO: task hung in %s", "trace"
    ),
    _format("bug", r"kernel BUG at \S+", "kernel BUG in %s"),
    _format("oops", r"BUG: kernel NULL pointer dereference", f"{_FAULT} NULL pointer dereference in %s"),
    _format(
        "oops",
        r"BUG: unable to handle (?:page fault|kernel paging request)",
        f"{_FAULT} paging request in %s",
    ),
    _format("oops", r"BUG: (?:\w+ )?stack guard page was hit", "BUG: stack guard page was hit in %s"),
    _format("atomic", rf"BUG: (?P<text>{_ATOMIC})", r"BUG: \g<text> in %s", "trace"),
    _format("slab", r"BUG [\w-]+ \([^)]*\): (?P<text>.*)", r"BUG: slab: \g<text> in %s", "trace"),
    _format("usercopy", r"usercopy: Kernel memory \w+ attempt", "BUG: bad usercopy in %s", "trace"),
    _format("bug", r"BUG: (?P<text>.*)", r"BUG: \g<text>", ""),
    _format("ubsan", r"UBSAN: (?P<text>[\w-]+) in (?P<place>\S+?:\d+)", r"UBSAN: \g<text> in %s", "trace"),
    _format("oops", r"(?:Oops: )?general protection fault", "general protection fault in %s"),
    _format("oops", r"(?:PANIC: |Oops: )double fault", "double fault in %s"),
    _format("oops", r"Oops: (?!Oops)(?P<text>[a-zA-Z][\w -]*)", r"\g<text> in %s"),
    _format("oops", r"Oops: ", "Oops in %s"),
    _format("oops", r"(?P<text>divide error|invalid opcode|stack segment|int3): ", r"\g<text> in %s"),
    _format("msr", r"unchecked MSR access error", "unchecked MSR access error in %s"),
    _format(
        "warning",
        rf"{_WARNING}(?:(?P<place>\S+?:\d+) )?(?:at )?(?P<function>{SYMBOL})",
        "WARNING in %s",
        "line rip trace",
    ),
    _format("refcount", r"refcount_t: ", "WARNING: refcount bug in %s"),
    _format("warning", rf"{_WARNING}(?P<place>\S+?:\d+)", "WARNING in %s"),
    _format("warning", r"WARNING: (?P<text>.*)", r"WARNING: \g<text>", ""),
)

_ADDRESS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b")
_NUMBER = re.compile(r"\b\d+\b")
_STACK_CORRUPTED = re.compile(rf"stack-protector: Kernel stack is corrupted in: ({SYMBOL})")
_ACCESS = re.compile(r"^(Read|Write) of size")


def recognise(text: str) -> tuple[Format, re.Match[str]] | None:
    """The format of a report's first line, or None for any other line."""
    for one in FORMATS:
        if match := re.match(one.start, text):
            return one, match
    return None


def title(form: Format, match: re.Match[str], report: Sequence[str]) -> tuple[str, str]:
    """The title, and the function with its offset ("" where there is none).

    report: the lines of the report without time and caller, the first one included.
    """
    if corrupted := _STACK_CORRUPTED.search(match.string):
        return f"panic: stack is corrupted in {plain(corrupted[1])}", corrupted[1]
    function = culprit(form.look, match, report)
    text = match.expand(form.title.replace("%a", _access(report)))
    if "%s" in text:
        return text.replace("%s", plain(function)) if function else text.replace(" in %s", ""), function
    return " ".join(_NUMBER.sub("N", _ADDRESS.sub("ADDR", text)).split()), function


def _access(report: Sequence[str]) -> str:
    found = next((match for line in report[:6] if (match := _ACCESS.match(line))), None)
    return f" {found[1]}" if found else ""
