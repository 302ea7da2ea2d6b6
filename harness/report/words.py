# SPDX-License-Identifier: GPL-2.0-or-later
"""Quantities, names and outcomes in a person's words; shared by all that is shown in a terminal."""

from __future__ import annotations

from pathlib import Path

from harness.case import GiB, Kernel, KiB, MiB, Outcome

MARKS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.SKIP: "-", Outcome.BROKEN: "!"}
STYLES = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.SKIP: "yellow", Outcome.BROKEN: "magenta"}


def duration(seconds: float) -> str:
    """ "4.1 s", "7:05 min" or "1:02:03 h"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def size(count: int) -> str:
    """ "512 B", "16 MiB" or "1.5 GiB": at most one decimal, none where it would be 0."""
    for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} B"


def count(number: int, noun: str) -> str:
    """ "1 patch", "9 patches"."""
    plural = noun + ("es" if noun.endswith(("ch", "s", "x")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def kernel(one: Kernel) -> str:
    """ "7.3.4-luh, 9 patches"."""
    return f"{one.release}, {count(len(one.subjects), 'patch') if one.subjects else 'no patches'}"


def place(path: Path) -> str:
    """A path with the home directory as ~."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if home in path.parents else str(path)


def scenario(name: str) -> str:
    """A scenario's name without its file, as `luh run` takes it."""
    plain, bracket, parameter = name.partition("[")
    return plain.rpartition("::")[2] + bracket + parameter
