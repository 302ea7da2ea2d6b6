# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness beside vmtest.sh: in turn, the first of each not counted, and never a figure of what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import vmtest
from harness.case import PatchedTree, silent
from harness.errors import InfraError, UsageError
from harness.store import Store

SCRIPT = """\
#!/bin/bash
while getopts 'd:T:t:' option; do case $option in d) build=$OPTARG ;; T) test=$OPTARG ;; esac; done
echo "vmtest.sh $test" >> {log}
echo "not ok 1 $test: words of its own"
sleep 0.2
exit {status}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was run, in a line each; the harness itself takes half a tenth of a second."""
    file = tmp_path / "log"

    def luh(*words: str, seconds: float, env: dict[str, str] | None = None) -> tuple[str, float]:
        with file.open("a") as stream:
            stream.write(f"luh {words[0]}{' cold' if env else ''}\n")
        return "", 0.05

    monkeypatch.setattr(vmtest, "luh", luh)
    return file


def tree(folder: Path, log: Path, status: int = 0) -> PatchedTree:
    script = folder / "linux" / vmtest.SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT.format(log=log, status=status))
    return PatchedTree(folder / "linux", "digest", "7.3.4", ())


def test_both_run_in_turn_and_the_first_of_each_is_not_counted(tmp_path: Path, log: Path) -> None:
    measured = vmtest.measure(tree(tmp_path, log), Store(tmp_path / "store"), 2, silent)
    one, _, four = measured.contests
    assert [len(figure.seconds) for figure in (one.harness, one.vmtest)] == [2, 2]
    assert log.read_text().splitlines()[:6] == ["vmtest.sh luo_kexec_simple", "luh run"] * 3
    assert log.read_text().splitlines()[6:12] == ["vmtest.sh luo_kexec_simple", "luh kselftest"] * 3
    turn = [*(f"vmtest.sh {name}" for name in vmtest.TESTS), "luh kselftest"]
    assert log.read_text().splitlines()[12:] == turn * 3
    assert four.vmtest.least >= 0.8  # the sum of four


def test_ratio_is_held_against_the_goal(tmp_path: Path, log: Path) -> None:
    one, same, four = vmtest.measure(tree(tmp_path, log), Store(tmp_path / "store"), 1, silent).contests
    assert one.ratio == pytest.approx(0.05 / one.vmtest.median)
    assert (one.goal, one.met, same.goal, four.met) == (0.25, one.ratio <= 0.25, 0.25, True)


def test_cold_ones_have_a_store_of_their_own(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUH_STORE", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    (cold,) = vmtest.measure_cold(tree(tmp_path, log), Store.default(), 1, silent).contests
    assert log.read_text().splitlines() == ["vmtest.sh luo_kexec_simple", "luh run cold"]
    assert (cold.goal, len(cold.harness.seconds)) == (0.75, 1)
    assert list((tmp_path / "store").iterdir()) == []


def test_failure_of_vmtest_is_told_in_its_own_words(tmp_path: Path, log: Path) -> None:
    with pytest.raises(InfraError, match="luo_kexec_simple ended with status 1") as failure:
        vmtest.measure(tree(tmp_path, log, status=1), Store(tmp_path / "store"), 1, silent)
    assert "words of its own" in failure.value.detail


def test_tree_without_it_is_named(tmp_path: Path) -> None:
    older = PatchedTree(tmp_path, "digest", "7.2.1", ())
    with pytest.raises(UsageError, match=r"no tools/testing/selftests/liveupdate/vmtest\.sh"):
        vmtest.measure(older, Store(tmp_path / "store"), 1, silent)
