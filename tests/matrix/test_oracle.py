# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pair of kernels owes, and that everything else is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.case import Outcome, Stage, Verdict
from harness.matrix.oracle import Owed, expect, judge

ABI = {"kho": "v4", "luo": "v5", "memfd": "v2", "kvm-vm": "v1", "kvm-gmem": "v1"}
# As Linux 7.3.4 says it.
IGNORED = """\
KHO: setup: handover FDT (0x12345000) is incompatible with 'kho-v5': 1
KHO: disabling KHO revival"""
PANICKED = """\
luo: LUO state is incompatible with 'luo-v6'
Kernel panic - not syncing: The incoming tree failed to initialize properly [-EINVAL], disabling live
update"""
REFUSED = "luo: No registered handler for compatible 'kvm-gmem-v1'"
SAID = {Owed.IGNORE: IGNORED, Owed.PANIC: PANICKED, Owed.REFUSE: REFUSED}
OTHERS = {Owed.IGNORE: {"kho": "v5"}, Owed.PANIC: {"luo": "v6"}, Owed.REFUSE: {"kvm-gmem": "v2"}}


def verdict(outcome: Outcome, stage: Stage = Stage.SCENARIOS) -> Verdict:
    return Verdict(outcome, "page 3: zeroes" if outcome is Outcome.FAIL else "", Path("/run"), stage=stage)


def test_equal_versions_have_to_work() -> None:
    expected = expect(ABI, ABI)
    assert expected.owed is Owed.WORK
    assert judge(expected, verdict(Outcome.PASS), "").outcome is Outcome.PASS
    assert judge(expected, verdict(Outcome.FAIL), REFUSED).outcome is Outcome.FAIL


@pytest.mark.parametrize("owed", SAID)
def test_what_differs_has_to_be_refused_in_the_documented_way(owed: Owed) -> None:
    expected = expect(ABI, ABI | OTHERS[owed])
    assert expected.owed is owed
    assert judge(expected, verdict(Outcome.FAIL), SAID[owed]).outcome is Outcome.PASS
    passed = judge(expected, verdict(Outcome.PASS), SAID[owed])
    assert passed.outcome is Outcome.FAIL
    assert "although they differ" in passed.text


@pytest.mark.parametrize("owed", SAID)
@pytest.mark.parametrize("said", ["", "Oops: general protection fault", *SAID.values()])
def test_every_other_way_is_a_failure(owed: Owed, said: str) -> None:
    if said != SAID[owed]:
        expected = expect(ABI, ABI | OTHERS[owed])
        assert judge(expected, verdict(Outcome.FAIL), said).outcome is Outcome.FAIL


@pytest.mark.parametrize("owed", [Owed.IGNORE, Owed.REFUSE])
def test_a_refusal_with_a_crash_beside_it_is_a_failure(owed: Owed) -> None:
    expected = expect(ABI, ABI | OTHERS[owed])
    text = f"{SAID[owed]}\nBUG: kernel NULL pointer dereference"
    assert judge(expected, verdict(Outcome.FAIL), text).outcome is Outcome.FAIL


def test_a_handler_that_is_missing_is_one_that_differs() -> None:
    expected = expect(ABI, {"kho": "v4", "luo": "v5", "memfd": "v2"})
    assert expected.handlers == ("kvm-gmem-v1", "kvm-vm-v1")
    assert "kvm-vm v1 to none" in expected.why


def test_a_handler_that_no_scenario_uses_owes_nothing() -> None:
    assert expect(ABI, ABI | {"kvm-gmem": "v2"}, used={"memfd"}).owed is Owed.WORK
    assert expect(ABI, ABI | {"kvm-gmem": "v2"}, used={"kvm-gmem"}).owed is Owed.REFUSE


def test_a_kernel_that_can_more_takes_what_an_older_one_gives() -> None:
    assert expect({"kho": "v4", "luo": "v5"}, ABI).owed is Owed.WORK


@pytest.mark.parametrize(
    ("outcome", "stage"),
    [
        (Outcome.BROKEN, Stage.SCENARIOS),
        (Outcome.SKIP, Stage.SCENARIOS),
        (Outcome.FAIL, Stage.BOOT),
        (Outcome.FAIL, Stage.BUILD),
    ],
)
def test_what_never_came_to_a_kexec_is_judged_by_itself(outcome: Outcome, stage: Stage) -> None:
    expected = expect(ABI, ABI | {"luo": "v6"})
    assert judge(expected, verdict(outcome, stage), PANICKED).outcome is outcome
