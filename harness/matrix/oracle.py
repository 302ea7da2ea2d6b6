# SPDX-License-Identifier: GPL-2.0-or-later
"""What two kernels owe each other, from the versions of what one hands over and the other takes. Pure.

Equal versions have to work. Where they differ, the kernel that comes has to refuse in the way that it
documents: - KHO (kernel/liveupdate/kexec_handover.c, kho_populate()): the handover is ignored with a
warning, and the host
  comes up as after an ordinary boot; all that was preserved is gone.
- LUO (luo_core.c, luo_early_startup(); luo_internal.h, luo_restore_fail()): a panic in an early initcall.
- a file handler (luo_file.c, luo_file_deserialize()): the log names the handler, /dev/liveupdate gives EIO.
Anything else is a failure, a pass too: a kernel that takes what it cannot read has corrupted it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.case import Outcome, Stage, Verdict

KHO, LUO = "kho", "luo"


class Owed(StrEnum):
    """What a pair of kernels owes."""

    WORK = "work"
    IGNORE = "ignore"  # KHO differs
    PANIC = "panic"  # LUO differs
    REFUSE = "refuse"  # a handler differs, or is missing


@dataclass(frozen=True, slots=True)
class Expectation:
    """owed: by the pair. why: the versions, in words. handlers: whose versions differ, as LUO names them."""

    owed: Owed
    why: str
    handlers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """outcome: PASS where what was owed happened. text: what happened, in a line."""

    outcome: Outcome
    text: str


def expect(
    going: Mapping[str, str], coming: Mapping[str, str], used: Iterable[str] | None = None
) -> Expectation:
    """What kernels with these versions owe. used: the handlers that the scenarios need, None for all."""
    if difference := _difference(KHO, going, coming):
        return Expectation(Owed.IGNORE, difference)
    if difference := _difference(LUO, going, coming):
        return Expectation(Owed.PANIC, difference)
    wanted = [name for name in going if name not in (KHO, LUO) and (used is None or name in set(used))]
    differing = [name for name in sorted(wanted) if going[name] != coming.get(name)]
    if differing:
        why = "; ".join(_difference(name, going, coming) for name in differing)
        return Expectation(Owed.REFUSE, why, tuple(f"{name}-{going[name]}" for name in differing))
    return Expectation(Owed.WORK, "all that they share has the same version")


def judge(expected: Expectation, verdict: Verdict, console: str) -> Judgement:
    """Whether a cell's kernels did what they owe. console: of all its scenarios, as one text."""
    said_nothing = verdict.outcome in (Outcome.BROKEN, Outcome.SKIP)
    if said_nothing or expected.owed is Owed.WORK or verdict.stage not in (Stage.KEXEC, Stage.SCENARIOS):
        return Judgement(verdict.outcome, verdict.reason)
    if verdict.outcome is Outcome.PASS:
        return Judgement(Outcome.FAIL, f"it passed, although they differ: {expected.why}")
    missing = [text for text, pattern in _signs(expected) if not re.search(pattern, console)]
    if missing:
        lacks = " and ".join(missing)
        text = f"refused in another way than documented, the console lacks {lacks}: {verdict.reason}"
        return Judgement(Outcome.FAIL, text)
    if expected.owed is not Owed.PANIC and re.search(r"Kernel panic|Oops:|BUG:|WARNING:", console):
        return Judgement(Outcome.FAIL, f"it refused, but not only that: {verdict.reason}")
    return Judgement(Outcome.PASS, f"{REFUSALS[expected.owed]}: {expected.why}")


REFUSALS = {
    Owed.WORK: "live-updated",
    Owed.IGNORE: "ignored as documented, everything preserved is lost",
    Owed.PANIC: "panics as documented",
    Owed.REFUSE: "refused as documented",
}


def _signs(expected: Expectation) -> list[tuple[str, str]]:
    """What has to be on the console, by what it is."""
    if expected.owed is Owed.IGNORE:
        return [
            ("the warning", r"handover FDT \(.*\) is incompatible with 'kho-v"),
            ("that KHO is off", r"disabling KHO revival"),
        ]
    if expected.owed is Owed.PANIC:
        return [
            ("the error", r"LUO state is incompatible with 'luo-v"),
            ("the panic", r"Kernel panic.*incoming tree failed to initialize"),
        ]
    names = "|".join(map(re.escape, expected.handlers))
    return [("the handler's name", rf"No registered handler for compatible '(?:{names})'")]


def _difference(name: str, going: Mapping[str, str], coming: Mapping[str, str]) -> str:
    """ "luo v5 to v6", "kvm-vm v1 to none", or "" where they are equal or the first has none."""
    if name not in going or going[name] == coming.get(name):
        return ""
    return f"{name} {going[name]} to {coming.get(name, 'none')}"
