# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program's end and its words come to, and that neither can lie alone."""

from __future__ import annotations

import signal

from harness.case import Outcome
from harness.guest.program import Ended
from harness.kselftest.verdict import Judgement, judge


def ended(code: int | None, *lines: str, killed: int = 0) -> Judgement:
    status = None if code is None else killed or code << 8
    return judge(Ended(status, "\n".join(lines), 1.0, 45.0))


PASSING = ("TAP version 13", "1..2", "ok 1 a", "ok 2 b")


def test_a_program_without_ktap_is_judged_by_its_status() -> None:
    assert ended(0, "# [STAGE 1] You may now perform kexec reboot.").outcome is Outcome.PASS
    failed = ended(1, "# Bail out of nothing", "the last word")
    assert (failed.outcome, failed.reason) == (Outcome.FAIL, "status 1: the last word")


def test_results_and_status_have_to_agree() -> None:
    assert ended(0, *PASSING).outcome is Outcome.PASS
    assert ended(1, *PASSING).outcome is Outcome.FAIL
    liar = ended(0, "1..2", "ok 1 a", "not ok 2 b")
    assert (liar.outcome, liar.reason) == (Outcome.FAIL, "b: not ok, and yet it exits with 0")
    short = ended(0, "1..3", "ok 1 a", "ok 2 b")
    assert (short.outcome, short.reason) == (Outcome.FAIL, "3 tests planned, 2 reported")


def test_a_skip_says_why_and_cannot_hide_a_failure() -> None:
    skipped = ended(4, "TAP version 13", "1..0 # SKIP - Requirement not met: kvm_has_cap(X)")
    assert (skipped.outcome, skipped.reason) == (Outcome.SKIP, "Requirement not met: kvm_has_cap(X)")
    assert ended(4, "Access denied - Exiting, skipping test").reason.startswith("Access denied")
    assert ended(4, "1..2", "not ok 1 a", "ok 2 b # SKIP no").outcome is Outcome.FAIL
    whole = ended(0, "1..2", "ok 1 a # SKIP no VMX", "ok 2 b # SKIP no VMX")
    assert (whole.outcome, whole.reason) == (Outcome.SKIP, "no VMX")


def test_what_was_left_out_of_a_pass_is_said() -> None:
    assert (
        ended(0, "1..2", "ok 1 a", "ok 2 b # SKIP no VMX").reason == "2 tests, 1 skipped, such as b: no VMX"
    )


def test_an_expected_failure_is_none() -> None:
    assert ended(0, "1..1", "not ok 1 a # TODO some day").outcome is Outcome.PASS


def test_a_failure_names_the_assertion() -> None:
    kvm = ended(254, "==== Test Assertion Failure ====", "  guest_memfd_test.c:80: !ret", "  pid=1 tid=1")
    assert kvm.reason == "guest_memfd_test.c:80: !ret (status 254)"
    bail = ended(1, "TAP version 13", "Bail out! [run_stage_2:60] no session (errno: ENOENT)", "# Totals: 0")
    assert bail.reason == "[run_stage_2:60] no session (errno: ENOENT)"
    line = "# liveupdate.c:84:exclusive_open:Expected errno (2) == EBUSY (16)"
    harness = ended(1, "1..2", "not ok 1 other", line, "not ok 2 exclusive")
    assert harness.reason == "other: not ok, and 1 more"
    harness = ended(1, "1..2", "ok 1 other", line, "not ok 2 exclusive")
    assert harness.reason == "exclusive: liveupdate.c:84:exclusive_open:Expected errno (2) == EBUSY (16)"
    assert "Expected errno" in harness.detail


def test_who_is_killed_or_never_ends_has_failed_whatever_he_said() -> None:
    crashed = ended(0, *PASSING, killed=signal.SIGSEGV)
    assert (crashed.outcome, crashed.reason) == (Outcome.FAIL, "killed by SIGSEGV: ok 2 b")
    assert ended(None, *PASSING).reason == "no end within 45 s: ok 2 b"


def test_subtests_have_verdicts_of_their_own() -> None:
    found = ended(0, "1..2", "ok 1 a", "ok 2 b # SKIP no").subtests
    assert [(one.name, one.outcome) for one in found] == [("a", Outcome.PASS), ("b", Outcome.SKIP)]
