# SPDX-License-Identifier: GPL-2.0-or-later
"""A series, patch by patch: what each one does, which first breaks what, and whether a later one mends it.

A search over Attempt and a few functions more (Workshop); what has been said of a patch is kept by all that
went into it, so that an interrupted check goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness.case import (
    Case,
    CompilerWarning,
    KernelDefinition,
    Outcome,
    Progress,
    Stage,
    Update,
    Verdict,
)
from harness.errors import HarnessError, KernelError, PatchError, UsageError


class Check(StrEnum):
    """What is asked of each patch, in the order of the columns."""

    APPLIES = "applies"
    BUILDS = "builds"
    WARNS = "W=1"
    STYLE = "checkpatch"
    BOOTS = "boots"
    PASSES = "scenarios"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says. SKIP: nothing can be said (yet), and why. text: one line; detail: the rest."""

    check: Check
    outcome: Outcome
    text: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one patch; number 0 is the tree without any.

    warnings: of the files that the series touches, None where they are not known. passed: the scenarios
    that passed. kept: from an earlier check, not found out now.
    """

    number: int
    file: str
    subject: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0
    warnings: tuple[CompilerWarning, ...] | None = None
    passed: tuple[str, ...] = ()
    kept: bool = False

    def outcome(self, check: Check) -> Outcome | None:
        """What the check says, None where it was not asked."""
        return next((one.outcome for one in self.findings if one.check is check), None)

    @property
    def broken(self) -> bool:
        """Whether the harness or the machine failed at it, so that nothing is known."""
        return any(one.outcome is Outcome.BROKEN for one in self.findings)


@dataclass(frozen=True, slots=True)
class Break:
    """A check that a patch was the first to fail; mended_by: the number of the one after which it held again.

    A patch's form cannot be mended by another.
    """

    check: Check
    number: int
    text: str
    mended_by: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """The rows from the tree below the first patch on, and what follows from them."""

    series: str
    tree: str
    rows: tuple[Row, ...]
    breaks: tuple[Break, ...]

    @property
    def outcome(self) -> Outcome:
        """FAIL where a patch is at fault, mended later or not: a series has to hold at each patch."""
        if any(row.broken for row in self.rows):
            return Outcome.BROKEN
        return Outcome.FAIL if self.breaks else Outcome.PASS


class Workshop(Protocol):
    """What is done with a patch, by whoever can. All raise KernelError, UsageError and InfraError."""

    def tree(self, kernel: KernelDefinition) -> str:
        """The tree that the series is for, in words."""

    def patches(self, kernel: KernelDefinition, progress: Progress) -> tuple[Patch, ...]:
        """All patches of the kernel's series."""

    def build(self, kernel: KernelDefinition, progress: Progress) -> tuple[CompilerWarning, ...]:
        """Build the kernel; returns all that the compiler warned of."""

    def style(self, kernel: KernelDefinition, patch: Path) -> tuple[str, ...]:
        """What checkpatch has against the patch."""

    def attempt(self, case: Case, progress: Progress) -> Verdict:
        """Boot the kernel, and run the scenarios."""

    def recall(self, case: Case, asked: Sequence[str]) -> Row | None:
        """The row that was kept for the case and the checks that were asked."""

    def keep(self, case: Case, asked: Sequence[str], row: Row) -> None:
        """Keep the row."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of a series. touched: the files that it changes."""

    path: Path
    subject: str
    touched: frozenset[str]


def check(
    case: Case, workshop: Workshop, progress: Progress, *, first: int = 1, boots: bool = True
) -> Report:
    """Check the patches of case.kernel's series from the first on, on the tree below it.

    boots: whether kernels are booted and scenarios are run. Raises UsageError for a series that cannot be,
    InfraError where the machine fails before a patch is reached.
    """
    patches = workshop.patches(case.kernel, progress)
    if not patches:
        raise UsageError("there is no series to check", hint="name one, or a kernel that has one")
    if not 1 <= first <= len(patches):
        raise UsageError(f"there is no patch {first}: the series has {len(patches)}")
    name = " + ".join(one.name for one in case.kernel.series)
    progress(Update("series", f"{len(patches)} patches of {name}", finished=True))
    asked = tuple(one for one in Check if boots or one not in (Check.BOOTS, Check.PASSES))
    rows: list[Row] = []
    began = time.monotonic()
    for number in range(first - 1, len(patches) + 1):
        shown = _Shown(number, first, len(patches), began, rows, progress)
        step = _Step(case, workshop, patches, number, asked, rows, shown.update)
        shown.update(Update("", step.subject))
        rows.append(step.row())
        progress(_ended(rows[-1], len(patches)))
    return Report(name, workshop.tree(case.kernel), tuple(rows), tuple(_breaks(rows)))


@dataclass(frozen=True, slots=True)
class _Shown:
    """Where a check is: what happens with a patch in one line, with an estimate for all that is left.

    began: on the monotonic clock. rows: those that are finished.
    """

    number: int
    first: int
    total: int
    began: float
    rows: Sequence[Row]
    progress: Progress

    def update(self, inner: Update) -> None:
        """Show what a stage says."""
        done, count = self.number - self.first + 1, self.total - self.first + 2
        new = sum(not row.kept for row in self.rows)
        # What every patch so far took, those that remain will take.
        left = (time.monotonic() - self.began) / new * (count - done) if new else None
        text = f"{inner.phase}: {inner.text}" if inner.phase else inner.text
        self.progress(Update(_phase(self.number, self.total), text, done=done / count, left=left))


def _ended(row: Row, total: int) -> Update:
    said = [
        f"{one.check}: {one.text}" for one in row.findings if one.outcome in (Outcome.FAIL, Outcome.BROKEN)
    ]
    outcome = Outcome.BROKEN if row.broken else Outcome.FAIL if said else Outcome.PASS
    text = "; ".join((row.subject, *said)) + (" (known)" if row.kept else "")
    return Update(_phase(row.number, total), text, finished=True, outcome=outcome)


def _phase(number: int, total: int) -> str:
    return f"{number}/{total}"


@dataclass(frozen=True, slots=True)
class _Step:
    """One patch in its turn."""

    case: Case
    workshop: Workshop
    patches: Sequence[Patch]
    number: int
    asked: tuple[Check, ...]
    rows: Sequence[Row]
    progress: Progress

    @property
    def patch(self) -> Patch | None:
        """None for the tree without any, or before the first that is asked for."""
        return self.patches[self.number - 1] if self.number and self.rows else None

    @property
    def subject(self) -> str:
        if self.number == 0:
            return "the tree without the series"
        return self.patches[self.number - 1].subject

    def row(self) -> Row:
        """From what was kept, or found out now and kept."""
        watched = tuple(sorted(frozenset().union(*(one.touched for one in self.patches))))
        kernel = replace(self.case.kernel, upto=self.number, watched=watched)
        case = replace(self.case, kernel=kernel, next_kernel=kernel)
        # What came before is part of what a row says: new warnings, scenarios that passed before.
        asked = (*self.asked, "patch" if self.patch else "base")
        if kept := self.workshop.recall(case, asked):
            return replace(kept, kept=True)
        started = time.monotonic()
        row = self._find_out(case)
        row = replace(row, seconds=time.monotonic() - started)
        if not row.broken:
            self.workshop.keep(case, asked, row)
        return row

    def _find_out(self, case: Case) -> Row:
        file = self.patches[self.number - 1].path.name if self.number else ""
        empty = Row(self.number, file, self.subject, ())
        style = [self._style(case.kernel)] if self.patch else []
        blocked = next((row for row in self.rows if row.outcome(Check.APPLIES) is Outcome.FAIL), None)
        if blocked:
            why = f"after {blocked.number}, which does not apply"
            return replace(empty, findings=self._ordered([Finding(Check.APPLIES, Outcome.SKIP, why), *style]))
        try:
            warnings = self.workshop.build(case.kernel, self.progress)
        except UsageError:
            raise
        except HarnessError as error:
            return replace(empty, findings=self._ordered([*_failed(error), *style]))
        findings = [Finding(one, Outcome.PASS) for one in (Check.APPLIES, Check.BUILDS)] + style
        if self.patch:
            findings.append(self._warns(warnings))
        passed: tuple[str, ...] = ()
        if Check.BOOTS in self.asked:
            verdict = self.workshop.attempt(case, self.progress)
            passed = tuple(one.name for one in verdict.scenarios if one.outcome is Outcome.PASS)
            findings += self._runs(verdict, passed)
        return replace(empty, findings=self._ordered(findings), warnings=warnings, passed=passed)

    def _ordered(self, findings: list[Finding]) -> tuple[Finding, ...]:
        said = {one.check: one for one in findings}
        return tuple(said[one] for one in Check if one in said)

    def _style(self, kernel: KernelDefinition) -> Finding:
        assert self.patch
        complaints = self.workshop.style(kernel, self.patch.path)
        if not complaints:
            return Finding(Check.STYLE, Outcome.PASS)
        return Finding(Check.STYLE, Outcome.FAIL, _some(complaints), "\n".join(complaints))

    def _warns(self, warnings: tuple[CompilerWarning, ...]) -> Finding:
        """What is new in the files that were touched since the last patch that compiled."""
        before = next((row for row in reversed(self.rows) if row.warnings is not None), None)
        if before is None or before.warnings is None:
            return Finding(Check.WARNS, Outcome.SKIP, "nothing before it compiles")
        touched = frozenset().union(*(one.touched for one in self.patches[before.number : self.number]))
        new = [
            f"{one.file}:{one.line}: {one.text}" if one.line else f"{one.file}: {one.text}"
            for one in added(before.warnings, warnings)
            if one.file in touched or one.file.removesuffix(".o") + ".c" in touched
        ]
        if not new:
            return Finding(Check.WARNS, Outcome.PASS)
        return Finding(Check.WARNS, Outcome.FAIL, _some(new), "\n".join(new))

    def _runs(self, verdict: Verdict, passed: tuple[str, ...]) -> list[Finding]:
        """Whether it boots, and what the scenarios say."""
        where = f"{verdict.reason}\n{verdict.detail}\ntraces: {verdict.directory}".strip()
        if not verdict.scenarios:
            return [Finding(Check.BOOTS, verdict.outcome, verdict.reason, where)]
        if all(one.stage is Stage.BOOT for one in verdict.scenarios):
            return [Finding(Check.BOOTS, verdict.outcome, verdict.reason, where)]
        boots = Finding(Check.BOOTS, Outcome.PASS)
        bad = [one for one in verdict.scenarios if one.outcome in (Outcome.FAIL, Outcome.BROKEN)]
        if bad:
            said = [f"{one.name}: {one.reason}" for one in bad]
            return [boots, Finding(Check.PASSES, verdict.outcome, _some(said), "\n".join((*said, where)))]
        before = {name for row in self.rows for name in row.passed}
        lost = [one for one in verdict.scenarios if one.outcome is Outcome.SKIP and one.name in before]
        if lost:
            said = [f"{one.name} no longer: {one.reason}" for one in lost]
            return [boots, Finding(Check.PASSES, Outcome.FAIL, _some(said), "\n".join((*said, where)))]
        skipped = [one for one in verdict.scenarios if one.outcome is Outcome.SKIP]
        if not passed:
            return [boots, Finding(Check.PASSES, Outcome.SKIP, f"not yet: {skipped[0].reason}")]
        yet = f", {len(skipped)} not yet" if skipped else ""
        return [boots, Finding(Check.PASSES, Outcome.PASS, f"{len(passed)} passed{yet}")]


def _failed(error: HarnessError) -> list[Finding]:
    """What a kernel that was not built says of the patch."""
    detail = f"{error.detail}\n{error.hint}".strip()
    if isinstance(error, PatchError):
        return [Finding(Check.APPLIES, Outcome.FAIL, error.message, detail)]
    outcome = Outcome.FAIL if isinstance(error, KernelError) else Outcome.BROKEN
    return [
        Finding(Check.APPLIES, Outcome.PASS),
        Finding(Check.BUILDS, outcome, error.message.removeprefix("the kernel does not compile: "), detail),
    ]


def _some(said: Sequence[str]) -> str:
    more = len(said) - 1
    return said[0] + (f", and {more} more" if more else "")


def added(before: Sequence[CompilerWarning], after: Sequence[CompilerWarning]) -> Iterator[CompilerWarning]:
    """The warnings that are new: lines move, so a warning is known by its file and its words."""
    known = Counter((one.file, one.text) for one in before)
    for one in after:
        if known[one.file, one.text]:
            known[one.file, one.text] -= 1
        else:
            yield one


# ---- what follows -----------------------------------------------------------------------------


def _breaks(rows: Sequence[Row]) -> Iterator[Break]:
    """Each check's first failure in a row of failures, in the order of the patches."""
    found = [one for check in Check for one in _breaks_of(check, rows)]
    yield from sorted(found, key=lambda one: one.number)


def _breaks_of(check: Check, rows: Sequence[Row]) -> Iterator[Break]:
    # A warning or a complaint is the patch's own; what does not build or boot lasts until it is mended.
    own = check in (Check.WARNS, Check.STYLE)
    open_since: int | None = None
    for index, row in enumerate(rows):
        finding = next((one for one in row.findings if one.check is check), None)
        if finding is None or finding.outcome is Outcome.SKIP:
            continue
        if finding.outcome is Outcome.FAIL and (own or open_since is None):
            open_since = row.number
            later = rows[index + 1 :]
            yield Break(check, row.number, finding.text, _mended(check, rows[:index], row, later))
        elif finding.outcome is Outcome.PASS:
            open_since = None


def _mended(check: Check, earlier: Sequence[Row], row: Row, later: Sequence[Row]) -> int | None:
    if check is Check.STYLE:
        return None
    if check is not Check.WARNS:
        return next((one.number for one in later if one.outcome(check) is Outcome.PASS), None)
    base = next((one.warnings for one in reversed(earlier) if one.warnings is not None), ())
    new = {(one.file, one.text) for one in added(base, row.warnings or ())}
    for one in later:
        if one.warnings is not None and not new & {(left.file, left.text) for left in one.warnings}:
            return one.number
    return None
