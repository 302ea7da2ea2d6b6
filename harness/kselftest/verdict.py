# SPDX-License-Identifier: GPL-2.0-or-later
"""How one of the kernel's tests ended and what it said -> a verdict on it. Pure.

The exit status (tools/testing/selftests/kselftest.h) and the lines of KTAP have to agree: a test that exits
with 0 after a line "not ok", or with fewer results than it planned, has failed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from harness.case import Finding, Outcome, Subtest
from harness.guest.program import Ended
from harness.kselftest import ktap

KSFT_SKIP = 4
OUTCOMES = {
    ktap.Status.OK: Outcome.PASS,
    ktap.Status.EXPECTED: Outcome.PASS,
    ktap.Status.SKIPPED: Outcome.SKIP,
    ktap.Status.FAILED: Outcome.FAIL,
    ktap.Status.CRASHED: Outcome.FAIL,
}
# What the tests' own macros print: kvm's TEST_ASSERT() and kselftest_harness.h's ASSERT_*() and EXPECT_*().
KVM_ASSERTION = re.compile(r"^==== Test Assertion Failure ====\n\s*(.+)$", re.MULTILINE)
HARNESS_ASSERTION = re.compile(r"# (\S+:\d+:\S+?:Expected .*)")
DETAIL_LINES = 60


@dataclass(frozen=True, slots=True)
class Judgement:
    """reason: in a line; for a PASS, what was left out of it. detail: for a FAIL, its last words.

    findings: what a kernel reported against itself meanwhile.
    """

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    subtests: tuple[Subtest, ...] = ()
    findings: tuple[Finding, ...] = ()


def judge(ended: Ended) -> Judgement:
    """The verdict on a program, as far as itself has a say."""
    report = ktap.parse(ended.output.splitlines())
    subtests = tuple(Subtest(one.name, OUTCOMES[one.status], one.reason) for one in report.leaves)
    if ended.code == KSFT_SKIP and not report.bad:
        return Judgement(Outcome.SKIP, _why_skipped(report, ended.output), "", subtests)
    if ended.code != 0 or report.bad:
        return Judgement(Outcome.FAIL, _why_failed(report, ended), tail(ended.output), subtests)
    counts = Counter(one.outcome for one in subtests)
    if subtests and counts[Outcome.SKIP] == len(subtests):
        return Judgement(Outcome.SKIP, _why_skipped(report, ended.output), "", subtests)
    return Judgement(Outcome.PASS, _left_out(subtests, counts), "", subtests)


def tail(output: str) -> str:
    """The last lines of what a program said."""
    return "\n".join(output.splitlines()[-DETAIL_LINES:])


def _left_out(subtests: tuple[Subtest, ...], counts: Counter[Outcome]) -> str:
    if not counts[Outcome.SKIP]:
        return f"{len(subtests)} tests" if len(subtests) > 1 else ""
    first = next(one for one in subtests if one.outcome is Outcome.SKIP)
    why = f": {first.reason}" if first.reason else ""
    return f"{len(subtests)} tests, {counts[Outcome.SKIP]} skipped, such as {first.name}{why}"


def _why_skipped(report: ktap.Report, output: str) -> str:
    reasons = [report.skip, *(leaf.reason for leaf in report.leaves if leaf.status is ktap.Status.SKIPPED)]
    said = next(filter(None, reasons), "") or _last_line(output)
    return said.removeprefix("- ").strip() or "the test skips without a word"


def _why_failed(report: ktap.Report, ended: Ended) -> str:
    bad = [leaf for leaf in report.leaves if leaf.status in ktap.BAD]
    how = "" if ended.code == 1 else ", and yet it exits with 0" if ended.code == 0 else f" ({ended.text})"
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        said = HARNESS_ASSERTION.search("\n".join(bad[0].log))
        why = said[1] if said else bad[0].reason or bad[0].status.value
        return f"{bad[0].name}: {why}{more}{how}"
    if report.bail:
        return f"{report.bail}{how}"
    if found := KVM_ASSERTION.search(ended.output):
        return f"{found[1].strip()}{how}"
    if ended.code == 0:
        return report.errors[0]
    last = _last_line(ended.output)
    return f"{ended.text}: {last}" if last else f"{ended.text}, without a word"


def _last_line(output: str) -> str:
    lines = [line.removeprefix("# ").strip() for line in output.splitlines() if line.strip("# ")]
    return lines[-1] if lines else ""
