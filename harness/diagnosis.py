# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that has ended -> findings: what its kernels said, and how they died."""

from __future__ import annotations

from harness.case import Finding
from harness.crash import console
from harness.machine.qemu import Machine


def findings(machine: Machine, leaks: str = "") -> tuple[Finding, ...]:
    """All findings of a machine that is off; complete once nothing is left of it.

    leaks: what kmemleak reported when it was asked at the end (agent/leaks.py), which no console has.
    """
    lines = [(line.at, line.text) for line in machine.console]
    last = lines[-1][0] if lines else 0.0
    return console.findings([*lines, *((last, line) for line in leaks.splitlines())], machine.ending)
