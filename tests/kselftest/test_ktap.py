# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of KTAP as kernels and their tests print them, whole, torn and lying."""

from __future__ import annotations

from harness.kselftest.ktap import Report, Status, parse


def read(text: str) -> Report:
    return parse(text.splitlines())


def outcomes(report: Report) -> list[tuple[str, Status]]:
    return [(leaf.name, leaf.status) for leaf in report.leaves]


# What kselftest_harness.h prints for tools/testing/selftests/liveupdate/liveupdate.c, with one failure.
HARNESS = """\
TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           liveupdate_device.basic_open_close ...
#            OK  liveupdate_device.basic_open_close
ok 1 liveupdate_device.basic_open_close
#  RUN           liveupdate_device.exclusive_open ...
# liveupdate.c:84:exclusive_open:Expected errno (2) == EBUSY (16)
#          FAIL  liveupdate_device.exclusive_open
not ok 2 liveupdate_device.exclusive_open
#  RUN           liveupdate_device.preserve_memfd ...
#      SKIP      /dev/liveupdate does not exist.
ok 3 liveupdate_device.preserve_memfd # SKIP /dev/liveupdate does not exist.
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
"""

# What the kernel's console has of kunit: time stamps, two levels of subtests, other messages in between.
KUNIT = """\
[    0.060000] KTAP version 1
[    0.060000] 1..2
[    0.061000]     KTAP version 1
[    0.061000]     # Subtest: sysctl_test
[    0.061000]     1..2
[    0.062000] random: crng init done
[    0.062000]     ok 1 sysctl_null
[    0.063000]         KTAP version 1
[    0.063000]         # Subtest: sysctl_ranges
[    0.064000]         ok 1 low
[    0.064000]         not ok 2 high # TODO nobody has written it yet
[    0.064000]         1..2
[    0.065000]     # sysctl_ranges: pass:1 fail:0 skip:0 total:2
[    0.065000]     ok 2 sysctl_ranges
[    0.066000] # sysctl_test: pass:2 fail:0 skip:0 total:2
[    0.066000] ok 1 sysctl_test
[    0.067000]     # Subtest: example
[    0.067000]     1..1
[    0.068000] EXT4-fs (vda): mounted
[    0.068000]     ok 1 example_skip # SKIP this test should be skipped
[    0.069000] ok 2 example # SKIP this test should be skipped
"""


def test_results_of_the_harness_have_their_names_and_reasons() -> None:
    report = read(HARNESS)
    assert report.planned == 3
    assert outcomes(report) == [
        ("liveupdate_device.basic_open_close", Status.OK),
        ("liveupdate_device.exclusive_open", Status.FAILED),
        ("liveupdate_device.preserve_memfd", Status.SKIPPED),
    ]
    failed, skipped = report.tests[1:]
    assert "# liveupdate.c:84:exclusive_open:Expected errno (2) == EBUSY (16)" in failed.log
    assert skipped.reason == "/dev/liveupdate does not exist."
    assert report.bad
    assert not report.errors


def test_subtests_are_found_among_the_kernels_own_lines() -> None:
    report = read(KUNIT)
    assert outcomes(report) == [
        ("sysctl_test.sysctl_null", Status.OK),
        ("sysctl_test.sysctl_ranges.low", Status.OK),
        ("sysctl_test.sysctl_ranges.high", Status.EXPECTED),
        ("example.example_skip", Status.SKIPPED),
    ]
    assert "random: crng init done" in report.tests[0].subtests[0].log
    assert not report.bad
    assert not report.errors


def test_a_plan_that_was_not_kept_is_an_error() -> None:
    assert read("TAP version 13\n1..3\nok 1 a\nok 2 b\n").errors == ("3 tests planned, 2 reported",)
    assert read("TAP version 13\n1..1\nok 1 a\nok 2 b\n").bad
    inner = read("1..1\n    # Subtest: inside\n    1..2\n    ok 1 a\nok 1 inside\n")
    assert inner.errors == ("inside: 2 tests planned, 1 reported",)


def test_a_missing_plan_is_no_error_but_known() -> None:
    report = read("ok 1 a\nok 2 b\n")
    assert report.planned is None
    assert not report.bad


def test_numbers_out_of_order_show_a_lost_result() -> None:
    assert read("1..2\nok 1 a\nok 3 c\n").errors == ("test number 3 where 2 was to come",)


def test_a_test_that_never_ends_has_crashed() -> None:
    text = "KTAP version 1\n1..2\nok 1 a\n    KTAP version 1\n    # Subtest: b\n    1..2\n    ok 1 one\n"
    report = read(text + "BUG: kernel NULL pointer dereference, address: 0000000000000000\n")
    assert report.tests[1].name == "b"
    assert report.tests[1].status is Status.CRASHED
    assert report.bad
    assert "b: 2 tests planned, 1 reported" in report.errors
    assert report.log == ("BUG: kernel NULL pointer dereference, address: 0000000000000000",)


def test_a_parent_cannot_hide_what_failed_inside_it() -> None:
    report = read("1..1\n    1..1\n    not ok 1 inner\nok 1 outer\n")
    assert report.bad
    assert outcomes(report) == [("outer.inner", Status.FAILED)]


def test_a_parent_that_fails_by_itself_is_not_lost() -> None:
    report = read("1..1\n    1..1\n    ok 1 inner\nnot ok 1 outer\n")
    assert outcomes(report) == [("outer.inner", Status.OK), ("outer", Status.FAILED)]


def test_bailing_out_and_planning_nothing_say_why() -> None:
    bailed = read("TAP version 13\n1..4\nok 1 a\nBail out! cannot open /dev/kvm\n# Totals: pass:1\n")
    assert (bailed.bail, bailed.bad, bailed.errors) == ("cannot open /dev/kvm", True, ())
    skipped = read("TAP version 13\n1..0 # SKIP - Requirement not met: kvm_has_cap(KVM_CAP_GUEST_MEMFD)\n")
    assert skipped.skip == "- Requirement not met: kvm_has_cap(KVM_CAP_GUEST_MEMFD)"
    assert not skipped.bad


def test_directives_and_figures_are_no_part_of_a_name() -> None:
    names = "ok 1 - a # XFAIL known\nnot ok 2 b # TIMEOUT 45 seconds\nok 3 c # pass:1 fail:0\nok 4\n"
    a, b, c, d = read(names).tests
    assert (a.name, a.status, a.reason) == ("a", Status.EXPECTED, "known")
    assert (b.name, b.status, b.reason) == ("b", Status.FAILED, "45 seconds")
    assert (c.name, c.status) == ("c", Status.OK)
    assert d.name == "test 4"


def test_prose_is_no_result() -> None:
    report = read("ok, here we go\nnot okay\n1..2 and so on\nhello\n")
    assert report.tests == ()
    assert report.planned is None
