# SPDX-License-Identifier: GPL-2.0-or-later
"""A series is judged patch by patch, and what was found out is not found out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import check_series, cli, command
from harness.case import (
    Case,
    CompilerWarning,
    KernelDefinition,
    MachineSpec,
    Medium,
    Outcome,
    Provider,
    ScenarioResult,
    Series,
    Source,
    Stage,
    Update,
    Verdict,
    silent,
)
from harness.check_series import Break, Check, Patch, Report, Row
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.layout import Layout
from harness.store import Store
from harness.workshop import Workshop

# Warns in 2, does not build in 3, is mended in 4, has a trailing space in 5.
COMMITS = """\
sed -i 's/return 1/return 11/' kernel/fork.c; git commit -qam 'kernel: fork eleven'
echo 'static int idle;' >> mm/memfd.c; git commit -qam 'mm: add a variable that nobody uses'
echo 'int twice(void) { return nothing; }' >> kernel/fork.c; git commit -qam 'kernel: use what is not there'
sed -i '/nothing/d' kernel/fork.c; sed -i '/idle/d' mm/memfd.c; git commit -qam 'kernel: mend it'
printf '/* space */ \\n' >> init/main.c; git commit -qam 'init: end a line with a space'
git format-patch -q -o ../series base
"""
SUBJECTS = [
    "the tree without the series",
    "kernel: fork eleven",
    "mm: add a variable that nobody uses",
    "kernel: use what is not there",
    "kernel: mend it",
    "init: end a line with a space",
]
HOLDS, FAILS, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.SKIP


@pytest.fixture
def folder(tiny_kernel: Path, tmp_path: Path) -> Path:
    """The series with all of its faults, against the tiny kernel's tree."""
    tree = tiny_kernel.parent / "linux"
    name = "-c user.name=A -c user.email=a@b -c core.autocrlf=false"
    script = f'git() {{ command git {name} "$@"; }}; cp -r {tree} work; cd work; git init -q; git add -A\n'
    script += f"git commit -qm base; git tag base\n{COMMITS}"
    command.run(["sh", "-ec", script], cwd=tmp_path, deadline=Deadline.after(30, "a script of a test"))
    return tmp_path / "series"


@pytest.fixture
def case(tiny_kernel: Path, folder: Path) -> Case:
    source = Source(Provider.TREE, str(tiny_kernel.parent / "linux"))
    series = (Series(Medium.FOLDER, str(folder)),)
    kernel = KernelDefinition("tiny", (source,), series, (tiny_kernel.parent / "tiny.config",))
    return Case(kernel, kernel, "minimal", MachineSpec(), ("test_basic.py",))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(Layout.here(), Store(tmp_path / "store"), tmp_path / "runs")


def outcomes(report: Report, check: Check) -> list[Outcome | None]:
    return [row.outcome(check) for row in report.rows]


def test_each_patch_is_judged_by_itself(case: Case, workshop: Workshop) -> None:
    report = check_series.check(case, workshop, silent, boots=False)
    assert [row.subject for row in report.rows] == SUBJECTS
    assert outcomes(report, Check.APPLIES) == [HOLDS] * 6
    assert outcomes(report, Check.BUILDS) == [HOLDS, HOLDS, HOLDS, FAILS, HOLDS, HOLDS]
    assert outcomes(report, Check.WARNS) == [None, HOLDS, FAILS, None, HOLDS, HOLDS]
    assert outcomes(report, Check.STYLE) == [None, HOLDS, HOLDS, HOLDS, HOLDS, FAILS]
    assert outcomes(report, Check.BOOTS) == [None] * 6
    assert report.outcome is FAILS


def test_what_breaks_is_named_with_what_mends_it(case: Case, workshop: Workshop) -> None:
    warns, builds, style = check_series.check(case, workshop, silent, boots=False).breaks
    assert (warns.check, warns.number, warns.mended_by) == (Check.WARNS, 2, 4)
    assert "mm/memfd.c:" in warns.text and "unused variable" in warns.text.replace(
        "defined but not used", "unused variable"
    )
    assert (builds.check, builds.number, builds.mended_by) == (Check.BUILDS, 3, 4)
    assert builds.text.startswith("kernel/fork.c:") and "nothing" in builds.text
    assert (style.check, style.number, style.mended_by) == (Check.STYLE, 5, None)
    assert "TRAILING_WHITESPACE" in style.text


def test_what_is_known_is_not_found_out_again(case: Case, workshop: Workshop, folder: Path) -> None:
    first = check_series.check(case, workshop, silent, boots=False)
    assert not any(row.kept for row in first.rows)
    again = check_series.check(case, workshop, silent, boots=False)
    assert all(row.kept for row in again.rows)
    assert again.breaks == first.breaks
    last = max(folder.iterdir())
    last.write_text(last.read_text().replace("space */ \n", "space */\n"))
    mended = check_series.check(case, workshop, silent, boots=False)
    assert [row.kept for row in mended.rows] == [True] * 5 + [False]
    assert outcomes(mended, Check.STYLE)[-1] is HOLDS


def test_an_interrupted_check_goes_on_where_it_stopped(case: Case, workshop: Workshop) -> None:
    def interrupt(update: Update) -> None:
        if update.phase.startswith("4/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_series.check(case, workshop, interrupt, boots=False)
    report = check_series.check(case, workshop, silent, boots=False)
    assert [row.kept for row in report.rows] == [True] * 4 + [False] * 2


def test_a_patch_that_does_not_apply_leaves_the_rest_untried(
    case: Case, workshop: Workshop, folder: Path
) -> None:
    second = sorted(folder.iterdir())[1]
    second.write_text(second.read_text().replace(" {", " {{"))
    report = check_series.check(case, workshop, silent, boots=False)
    assert outcomes(report, Check.APPLIES) == [HOLDS, HOLDS, FAILS, OPEN, OPEN, OPEN]
    assert outcomes(report, Check.STYLE)[-1] is FAILS
    assert report.breaks[0].text.startswith("0002-")
    assert report.breaks[0].mended_by is None


def test_a_check_can_begin_in_the_middle(case: Case, workshop: Workshop) -> None:
    report = check_series.check(case, workshop, silent, first=5, boots=False)
    assert [row.number for row in report.rows] == [4, 5]
    assert [one.check for one in report.breaks] == [Check.STYLE]


@pytest.mark.parametrize("first", [0, 6])
def test_a_beginning_beyond_the_series_is_refused(case: Case, workshop: Workshop, first: int) -> None:
    with pytest.raises(UsageError, match="there is no patch"):
        check_series.check(case, workshop, silent, first=first, boots=False)


# ---- what the kernels do -----------------------------------------------------------------------


class Scripted:
    """A workshop whose kernels do what a test says: number -> verdict."""

    def __init__(self, *verdicts: Verdict) -> None:
        self._verdicts = verdicts

    def tree(self, kernel: KernelDefinition) -> str:
        return "a tree"

    def patches(self, kernel: KernelDefinition, progress: object) -> tuple[Patch, ...]:
        count = len(self._verdicts) - 1
        return tuple(
            Patch(Path(f"{number}.patch"), f"patch {number}", frozenset()) for number in range(1, count + 1)
        )

    def build(self, kernel: KernelDefinition, progress: object) -> tuple[CompilerWarning, ...]:
        return ()

    def style(self, kernel: KernelDefinition, patch: Path) -> tuple[str, ...]:
        return ()

    def attempt(self, case: Case, progress: object) -> Verdict:
        assert case.kernel.upto is not None
        return self._verdicts[case.kernel.upto]

    def recall(self, case: Case, asked: object) -> Row | None:
        return None

    def keep(self, case: Case, asked: object, row: Row) -> None:
        assert not row.broken


def ran(*results: ScenarioResult) -> Verdict:
    worst = next(
        (
            outcome
            for outcome in ("BROKEN", "FAIL", "PASS", "SKIP")
            if outcome in {one.outcome for one in results}
        ),
        "SKIP",
    )
    return Verdict(Outcome(worst), results[0].reason, Path("/run"), scenarios=results)


def scenario(name: str, outcome: Outcome, reason: str = "", stage: Stage = Stage.SCENARIOS) -> ScenarioResult:
    return ScenarioResult(name, outcome, 1.0, reason, stage=stage)


def test_a_scenario_may_come_late_but_not_go(case: Case) -> None:
    skipped = scenario("a", OPEN, "no such call")
    passed = scenario("a", HOLDS)
    report = check_series.check(case, Scripted(ran(skipped), ran(skipped), ran(passed), ran(skipped)), silent)
    assert outcomes(report, Check.PASSES) == [OPEN, OPEN, HOLDS, FAILS]
    assert report.breaks == (Break(Check.PASSES, 3, "a no longer: no such call", None),)


def test_a_kernel_that_does_not_boot_is_told_from_one_that_fails(case: Case) -> None:
    dead = ran(scenario("a", FAILS, "it does not boot", Stage.BOOT))
    wrong = ran(scenario("a", FAILS, "a page is gone"))
    well = ran(scenario("a", HOLDS))
    report = check_series.check(case, Scripted(well, dead, wrong, well), silent)
    assert outcomes(report, Check.BOOTS) == [HOLDS, FAILS, HOLDS, HOLDS]
    assert outcomes(report, Check.PASSES) == [HOLDS, None, FAILS, HOLDS]
    assert [(one.check, one.number, one.mended_by) for one in report.breaks] == [
        (Check.BOOTS, 1, 2),
        (Check.PASSES, 2, 3),
    ]


def test_a_broken_machine_says_nothing_of_a_patch_and_is_not_kept(case: Case) -> None:
    broken = Verdict(Outcome.BROKEN, "QEMU is gone", Path("/run"), stage=Stage.MACHINE)
    well = ran(scenario("a", HOLDS))
    report = check_series.check(case, Scripted(well, broken, well), silent)
    assert report.outcome is Outcome.BROKEN
    assert report.breaks == ()


def test_new_warnings_are_told_from_those_that_moved() -> None:
    before = [CompilerWarning("a.c", 1, "x"), CompilerWarning("a.c", 9, "y")]
    after = [CompilerWarning("a.c", 3, "x"), CompilerWarning("a.c", 4, "x"), CompilerWarning("b.c", 1, "y")]
    assert list(check_series.added(before, after)) == after[1:]


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def luh(
    tiny_kernel: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setenv("LUH_STORE", str(tmp_path / "store"))
    always = ["--kernel", str(tiny_kernel), "--runs", str(tmp_path / "runs")]
    return lambda *words: cli.main(["check-series", *words, *always])


def test_the_report_has_a_row_for_each_patch(
    luh: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, head in (("120", "checkpatch"), ("60", "chk")):
        monkeypatch.setenv("COLUMNS", columns)
        assert luh(str(folder), "--no-boot", "--no-color") == 1
        out = capsys.readouterr().out
        assert head in out
        assert all(len(line) <= int(columns) for line in out.splitlines())
        assert "5 patches, 3 at fault, 2 of them mended later" in out
        assert "mended by 4" in out.replace("\n", " ")


def test_the_report_as_json(
    luh: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert luh(str(folder), "--no-boot", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "FAIL"
    assert [row["subject"] for row in document["report"]["rows"]] == SUBJECTS


def test_commits_are_checked_on_the_one_they_start_from(
    luh: Callable[..., int],
    folder: Path,
    tiny_kernel: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the default kernel's definition, whose fragments the tiny tree does not know, the base fails."""
    from harness.kernel import definition

    work = folder.parent / "work"
    below = definition.below(Series(Medium.RANGE, str(work), "base..HEAD"))
    assert (below.provider, below.location) == (Provider.GIT, str(work / ".git"))
    assert luh(f"{work}:base..HEAD", "--no-boot", "--json") == 1
    rows = json.loads(capsys.readouterr().out)["report"]["rows"]
    assert [row["subject"] for row in rows] == SUBJECTS


@pytest.mark.usefixtures("standin")
def test_kernels_are_booted_and_run_scenarios(
    luh: Callable[..., int],
    folder: Path,
    write_scenario: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for patch in sorted(folder.iterdir())[1:]:
        patch.unlink()
    own = write_scenario("def test_up(host):\n    assert host\n")
    assert luh(str(folder), "--scenarios", str(own), "--json") == 0
    base, first = json.loads(capsys.readouterr().out)["report"]["rows"]
    found = {one["check"]: (one["outcome"], one["text"]) for one in first["findings"]}
    assert found["boots"] == ("PASS", "")
    assert found["scenarios"] == ("PASS", "1 passed")
    assert base["passed"] == first["passed"] != []
