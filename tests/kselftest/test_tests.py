# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests a user's words mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.case import Selftest
from harness.errors import UsageError
from harness.kselftest.tests import load, resolve
from harness.layout import Layout

KNOWN = (
    Selftest("liveupdate/luo_simple", stages=2),
    Selftest("liveupdate/liveupdate"),
    Selftest("kvm/x86/private_mem_test"),
)


def names(*words: str, two_stage: tuple[str, ...] = ()) -> list[tuple[str, int, bool]]:
    return [(one.name, one.stages, one.named) for one in resolve(words, two_stage, KNOWN)]


def test_no_word_means_all_of_the_list_and_none_of_it_has_to_be_there() -> None:
    assert resolve((), (), KNOWN) == KNOWN


def test_a_test_goes_by_its_name_its_folder_or_its_path() -> None:
    assert names("luo_simple") == [("liveupdate/luo_simple", 2, True)]
    assert names("private_mem_test") == [("kvm/x86/private_mem_test", 1, True)]
    assert names("liveupdate") == [("liveupdate/luo_simple", 2, False), ("liveupdate/liveupdate", 1, False)]
    whole = "tools/testing/selftests/liveupdate/luo_simple.c"
    assert names(whole) == names(f"~/src/linux/{whole}") == [("liveupdate/luo_simple", 2, True)]
    assert names("kvm/x86/cpuid_test") == [("kvm/x86/cpuid_test", 1, True)]


def test_a_test_of_two_stages_can_be_one_that_nobody_knows() -> None:
    path = "tools/testing/selftests/liveupdate/luo_mine.c"
    assert names(two_stage=(path,)) == [("liveupdate/luo_mine", 2, True)]
    assert names(two_stage=("luo_simple", "liveupdate/luo_mine")) == [
        ("liveupdate/luo_simple", 2, True),
        ("liveupdate/luo_mine", 2, True),
    ]


def test_a_test_is_run_once_however_often_it_is_named() -> None:
    assert names("liveupdate", "luo_simple") == [
        ("liveupdate/luo_simple", 2, True),
        ("liveupdate/liveupdate", 1, False),
    ]


def test_a_word_that_means_nothing_is_told_what_is_near() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(("luo_simpel",), (), KNOWN)
    assert "luo_simple" in caught.value.hint
    with pytest.raises(UsageError):
        resolve((), ("luo_mine",), KNOWN)


def test_a_mistake_in_the_list_names_the_test(tmp_path: Path) -> None:
    file = tmp_path / "kselftest.yaml"
    file.write_text("kvm/one: {stage: 2}\n")
    with pytest.raises(UsageError, match="kvm/one: fields are log, option, script, stages"):
        load(file)


def test_the_projects_own_list_can_be_read() -> None:
    known = {one.name: one for one in load(Layout.here().kselftests)}
    assert known["liveupdate/luo_kexec_simple"].stages == 2
    assert known["kho/vmtest"].source == "kho/vmtest.sh"
