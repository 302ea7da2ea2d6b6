# SPDX-License-Identifier: GPL-2.0-or-later
"""A finding in the few lines that a person reads first. Pure."""

from __future__ import annotations

import re

from harness.case import Finding
from harness.crash.console import PREFIX

LINES = 10
BEFORE = 2
# Registers, and what else a report has that says little at first sight.
_DULL = re.compile(
    r"(?:R(?!IP)[A-Z0-9]{2}|[DC]R\d|FS|CS|PKRU|Code|CPU|Hardware name|Modules linked in)\s*:"
    r"|RSP: |RIP: 0033|\s*\? |</?TASK>|\s*</?(?:IRQ|NMI|SOFTIRQ)>|=+$|-+$|#PF: |PGD |$"
)


def heading(finding: Finding) -> str:
    """ "KASAN: slab-use-after-free Read in f, after kexec 1, mm/f.c:12, 3 times"."""
    parts = (
        finding.title,
        kernel(finding.kernel),
        finding.place,
        f"{finding.count} times" * (finding.count > 1),
    )
    return ", ".join(part for part in parts if part)


def kernel(number: int) -> str:
    """Which kernel that is, for a person."""
    return f"after kexec {number}" if number else "in the first kernel"


def excerpt(finding: Finding) -> tuple[str, ...]:
    """Ten lines around the finding's first: what came before it, it, and where it was."""
    telling = [line for line in finding.lines if not _DULL.match(PREFIX.sub("", line))]
    after = telling[: LINES - BEFORE] if telling else []
    before = finding.before[-(LINES - len(after)) if len(after) < LINES - BEFORE else -BEFORE :]
    return (*before, *after)
