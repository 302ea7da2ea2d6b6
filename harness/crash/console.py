# SPDX-License-Identifier: GPL-2.0-or-later
"""Console lines -> findings: what a kernel says about itself when something is wrong. Pure.

The kernel's own words for it: lib/bug.c, kernel/panic.c, mm/kasan/report.c, lib/ubsan.c,
kernel/hung_task.c, kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/locking/lockdep.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CONTEXT_LINES = 10

# A report's first line, without the kernel's time stamp; tried in this order.
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("panic", r"Kernel panic - not syncing"),
        ("kasan", r"BUG: KASAN:"),
        ("kfence", r"BUG: KFENCE:"),
        ("kmemleak", r"kmemleak: \d+ new suspected memory leaks"),
        (
            "lockdep",
            r"WARNING: (possible|inconsistent|bad unlock|suspicious RCU|held lock|lock held|Nested lock)",
        ),
        ("lockup", r"watchdog: BUG: soft lockup|Watchdog detected hard LOCKUP"),
        ("bug", r"(^|\s)BUG: |kernel BUG at "),
        ("ubsan", r"UBSAN: "),
        ("rcu", r"rcu: .*(self-detected stall|detected stalls|detected expedited stalls)|rcu:.*stall"),
        ("hung", r"INFO: task .* blocked for more than"),
        ("oops", r"Oops(:| -)|general protection fault|unable to handle|invalid opcode: |double fault: "),
        ("warning", r"(^|\s)WARNING: "),
    )
)
_TIME = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])?\s*")


@dataclass(frozen=True, slots=True)
class Finding:
    """One report of a kernel against itself. line: its first line, without the time stamp.

    number: of that line, from 0. context: the lines from it on, as far as they help a person.
    """

    kind: str
    line: str
    number: int
    context: tuple[str, ...]


def findings(lines: Iterable[str]) -> tuple[Finding, ...]:
    """All findings in the order of the lines; what follows inside a report's context is part of it."""
    return tuple(_scan(list(lines)))


def _scan(lines: list[str]) -> Iterator[Finding]:
    covered = -1
    for number, line in enumerate(lines):
        text = _TIME.sub("", line)
        kind = _kind(text)
        if kind and (number > covered or kind == "panic"):
            covered = number + CONTEXT_LINES
            yield Finding(kind, text.strip(), number, tuple(lines[number : covered + 1]))


def _kind(text: str) -> str:
    return next((kind for kind, pattern in PATTERNS if pattern.search(text)), "")
