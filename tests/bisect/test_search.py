# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults planted in real histories are found, on the right side; only the kernels themselves are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from harness.bisect import account
from harness.bisect.history import Repository, read_log
from harness.bisect.judge import Answer, Broken
from harness.bisect.search import Finding, check_ends
from harness.bisect.state import State
from harness.case import Medium, Series
from harness.errors import UsageError
from tests.bisect.conftest import Bench

MakeBench = Callable[..., Bench]


def culprit(finding: Finding) -> str:
    assert finding.culprit is not None
    return finding.culprit.subject


@pytest.mark.parametrize("side", ["from", "to", "both"])
def test_the_guilty_side_is_named_and_its_commit_found(bench: MakeBench, side: str) -> None:
    made = bench(20, {13: side})
    (finding,) = made.search()
    assert finding.side == side
    assert culprit(finding) == "kernel: fault 13"
    assert finding.steps <= 6  # of 20 commits: 4 or 5 of git's, and the revert
    assert finding.last_good[0].subject == "kernel: change 12"
    assert finding.last_good[1].answer is Answer.GOOD
    assert finding.first_bad[1].reason.startswith("page 3")
    assert finding.revert.startswith("reverting it on the bad end mends it")
    assert "part13.h" in finding.diffstat


def test_two_faults_on_two_sides_are_two_culprits(bench: MakeBench) -> None:
    found = bench(20, {4: "from", 15: "to"}).search()
    assert {(one.side.value, culprit(one)) for one in found} == {
        ("from", "kernel: fault 4"),
        ("to", "kernel: fault 15"),
    }


def test_a_side_that_is_asked_for_is_searched_alone(bench: MakeBench) -> None:
    made = bench(16, {4: "from", 9: "to"})
    (finding,) = made.search("to")
    assert culprit(finding) == "kernel: fault 9"
    held = {case.kernel.sources[0].pin for case in made.sufferer.cases} if made.sufferer else set()
    assert held == {made.history.commits[0]}


@pytest.mark.parametrize("word", ["nobuild", "noboot"])
def test_what_cannot_be_judged_is_skipped_and_costs_no_answer(bench: MakeBench, word: str) -> None:
    made = bench(24, {10: word, 11: word, 14: "to"}, mends={12: 10, 13: 11})
    (finding,) = made.search("to")
    assert culprit(finding) == "kernel: fault 14"
    assert made.state is not None
    skipped = [ruling for ruling in made.state.rulings.values() if ruling.answer is Answer.SKIP]
    assert skipped
    assert {ruling.tally.runs for ruling in skipped} == {0}


def test_commits_that_cannot_be_judged_leave_a_range(bench: MakeBench) -> None:
    made = bench(10, {})
    middle = made.history.commits[4:8]
    history = made.history
    history.git("printf '/* FAULT=to */\n' > kernel/part99.h; git add -A; git commit -qm 'kernel: end'")
    history.commits = history.git("git rev-list --reverse HEAD").split()
    made.skipped = tuple(middle + history.commits[8:-1])
    (finding,) = made.search("to")
    assert finding.culprit is None
    assert {one.sha for one in finding.suspects} == {*made.skipped, history.commits[-1]}
    assert finding.revert == ""


def test_a_flake_of_one_in_three_is_found_and_the_log_says_how_often(bench: MakeBench) -> None:
    made = bench(20, {6: "flake"}, confidence=0.99)
    (finding,) = made.search("to")
    assert culprit(finding) == "kernel: fault 6"
    assert made.state is not None
    log = (made.state.directory / "log").read_text()
    assert "good: 0 of" in log
    assert finding.runs > 10 * finding.steps
    assert all(ruling.wrong < 0.01 for ruling in made.state.rulings.values())


def test_ends_that_are_not_as_said_are_refused(bench: MakeBench) -> None:
    made = bench(8, {2: "to"})
    with pytest.raises(UsageError, match=r"the good end, .* is not good: bad"):
        made.search("to", good=4)
    with pytest.raises(UsageError, match=r"the bad end, .* is not bad: good"):
        made.search("to", bad=1)
    repository = Repository.of(made.history.tree)
    with pytest.raises(UsageError, match="no ancestor"):
        check_ends(repository, made.history.commits[5], made.history.commits[1])


def test_without_confidence_an_end_is_run_once(bench: MakeBench) -> None:
    made = bench(8, {6: "to"}, confidence=0.0)
    with pytest.raises(UsageError, match=r"the bad end, .* is not bad: good"):
        made.search("to", bad=1)
    assert made.sufferer
    assert len(made.sufferer.cases) == 1


def test_broken_stops_and_the_search_goes_on_where_it_was(bench: MakeBench) -> None:
    made = bench(30, {21: "to"})
    made.broken = 14
    with pytest.raises(Broken, match="the disk is full"):
        made.search("to")
    assert made.state is not None
    assert made.sufferer is not None
    before = made.state.rulings.copy()
    made.state = State.open(made.directory / "state", "")
    assert made.state.rulings == before != {}
    made.broken = 0
    (finding,) = made.search("to")
    assert culprit(finding) == "kernel: fault 21"
    again = [case.next_kernel.sources[0].pin for case in made.sufferer.cases]
    assert not set(again) & {key.partition(" ")[2] for key in before}


def test_the_user_s_tree_is_not_touched(bench: MakeBench) -> None:
    made = bench(12, {7: "to"})
    before = made.history.git("git status --porcelain; git rev-parse HEAD; git for-each-ref; ls .git")
    made.search("to")
    assert made.history.git("git status --porcelain; git rev-parse HEAD; git for-each-ref; ls .git") == before


def test_git_can_replay_the_log_and_so_can_we(bench: MakeBench) -> None:
    made = bench(12, {7: "to"})
    made.search("to")
    assert made.state is not None
    log = made.state.directory / "bisect-to.log"
    said = made.history.git(f"git bisect replay {log}; git bisect log; git bisect reset 2>&1")
    assert "first bad commit" in said
    terms, marks = read_log(log.read_text())
    assert (terms.good, terms.bad) == ("good", "bad")
    assert made.history.commits[8] in marks["bad"]
    assert made.history.commits[0] in marks["good"]


def test_the_mail_has_what_an_author_needs(bench: MakeBench) -> None:
    (finding,) = bench(12, {7: "to"}).search("to")
    text = account.mail(finding, ("test_basic.py",), "luh bisect --tree linux")
    assert text.startswith("To: An Author <author@example.org>\nSubject: [REGRESSION] live update")
    assert f'Fixes: {finding.suspects[0].short} ("kernel: fault 7")' in text
    assert "luh bisect --tree linux" in text
    assert "page 3: zeroes" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("Subject", "#", "To"))) <= 90


def test_the_series_of_a_commit_is_looked_for_once(bench: MakeBench) -> None:
    """The older half takes the series "old", the newer one none; two more never apply."""
    made = bench(20, {0: "old", 7: "to"}, mends={10: 0})
    made.series = (*((Series(Medium.FOLDER, name),) for name in ("new", "other", "old")), ())
    (finding,) = made.search()
    assert (finding.side.value, culprit(finding)) == ("to", "kernel: fault 7")
    assert made.sufferer is not None
    tried = Counter(
        (kernel.sources[0].pin, kernel.series)
        for case in made.sufferer.cases
        for kernel in {case.kernel, case.next_kernel}
    )
    refused = [count for (_, series), count in tried.items() if series[:1] in made.series[:2]]
    assert len(tried) > len(refused) > 8
    assert set(refused) == {1}


def test_kernels_that_do_not_hand_over_to_each_other_move_together(bench: MakeBench) -> None:
    made = bench(6, {})
    history = made.history
    folder = history.tree / "include/linux/kho/abi"
    folder.mkdir(parents=True)
    (folder / "luo.h").write_text('#define LUO_ABI_COMPATIBLE "luo-v5"\n')
    history.git("git add -A; git commit -qm 'luo: v5'")
    start = len(history.commits)
    (folder / "luo.h").write_text('#define LUO_ABI_COMPATIBLE "luo-v6"\n')
    history.git("git commit -qam 'luo: v6'")
    history.git("printf '/* FAULT=to */\n' > kernel/part99.h; git add -A; git commit -qm 'kernel: the fault'")
    history.commits = history.git("git rev-list --reverse HEAD").split()
    (finding,) = made.search(good=start)
    assert finding.side == "both"
    assert "luo v6 and v5" in finding.remark
    assert culprit(finding) == "kernel: the fault"
