# SPDX-License-Identifier: GPL-2.0-or-later
"""What verdicts mean for a candidate of a search, and how many of them it takes.

No patch, no configuration, no build, no first boot: the candidate cannot be judged (SKIP). A FAIL after it
was up is BAD, PASS is GOOD. BROKEN says nothing about the kernel and stops the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from harness.bisect.odds import Tally, odds_of_good
from harness.case import Attempt, Case, Outcome, Series, Stage, Verdict
from harness.errors import InfraError, UsageError

# Where a kernel cannot be had or does not come up at all.
UNJUDGED = (Stage.SERIES, Stage.CONFIG, Stage.BUILD, Stage.BOOT)
MOST_RUNS = 200
# So often the bad end has to fail before its rate is taken for known.
CONFIRMATIONS = 3
# It is searched for its first failure no longer than that.
PATIENCE = 60


class Answer(StrEnum):
    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


class Broken(InfraError):
    """The harness or the machine failed; the search stops, and can be resumed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run that speaks for an answer. directory: of its traces."""

    outcome: Outcome
    stage: Stage
    reason: str
    directory: str
    kernel: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answer on a candidate. tally: of the runs that it took; wrong: the odds that it is wrong.

    passed and failed: the first run of either kind. note: what a reader of the log should know besides.
    """

    answer: Answer
    tally: Tally
    wrong: float
    reason: str
    passed: Evidence | None = None
    failed: Evidence | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """ "bad: 2 of 3 runs failed, odds of a wrong turn 0.0004: page 3: zeroes" """
        if self.answer is Answer.SKIP:
            return f"skip: {self.reason}"
        runs = f"{self.tally.fails} of {self.tally.runs} runs failed" if self.tally.runs > 1 else "1 run"
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.answer}: {runs}, odds of a wrong turn {self.wrong:.2g}{reason}"


# A kernel as far as its patches are concerned: the commits or trees, and the series.
_Patching = tuple[tuple[tuple[str, str], ...], tuple[Series, ...]]


@dataclass(slots=True)
class Judge:
    """Rules on candidates by attempting them, and learns from each how often good and bad kernels fail.

    allowed: the odds of a wrong turn that a ruling may have. on_run: is told of each verdict. lacking: what a
    kernel is that lacks what the scenario needs (where the good end does, it is GOOD: what is not there yet
    is not broken).
    """

    attempt: Attempt
    allowed: float
    on_run: Callable[[Tally, Verdict], None] = lambda tally, verdict: None
    lacking: Answer = Answer.SKIP
    good: Tally = field(default_factory=Tally)
    bad: Tally = field(default_factory=Tally)
    _patched: dict[_Patching, bool] = field(default_factory=dict)

    def fitting(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        """Those whose series are not known not to apply; the last one in any case."""
        found = tuple(one for one in cases if all(self._patched.get(key, True) for key in _patchings(one)))
        return found or cases[-1:]

    def note(self, case: Case, applied: bool) -> None:
        """Remember whether the series of a case's kernels apply, as far as its attempt has told."""
        keys = _patchings(case)
        unknown = {key for key in keys if not self._patched.get(key)}
        if applied or len(unknown) == 1:  # the other kernel of the two takes its series
            self._patched.update(dict.fromkeys(keys if applied else unknown, applied))

    def rule(self, cases: tuple[Case, ...]) -> Ruling:
        """The ruling on a candidate. cases: its variants, of which the first whose series applies counts.

        Raises Broken, UsageError.
        """
        return self._learn(self._repeat(_Trial(self, cases), self._is_decided))

    def confirm_bad(self, cases: tuple[Case, ...]) -> Ruling:
        """The ruling on the end that is said to be bad: it is run until it has failed a few times."""
        enough, patience = (CONFIRMATIONS, PATIENCE) if self.allowed < 0.5 else (1, 1)

        def is_decided(seen: Tally) -> bool:
            return seen.fails >= enough or (not seen.fails and seen.runs >= patience)

        ruling = self._repeat(_Trial(self, cases), is_decided)
        if ruling.tally.fails:
            ruling = replace(ruling, answer=Answer.BAD, wrong=0.0)
        return self._learn(ruling)

    def repeat(self, cases: tuple[Case, ...], passes: int) -> Ruling:
        """The ruling by a plain count: good after so many passes in a row, bad at the first failure."""
        return self._repeat(_Trial(self, cases), lambda seen: seen.fails > 0 or seen.passes >= passes)

    def recall(self, ruling: Ruling) -> Ruling:
        """Learn from a ruling that was made before."""
        return self._learn(ruling)

    def _is_decided(self, seen: Tally) -> bool:
        good = odds_of_good(seen, self.good, self.bad)
        return min(good, 1.0 - good) <= self.allowed or seen.runs >= MOST_RUNS

    def _repeat(self, trial: _Trial, is_decided: Callable[[Tally], bool]) -> Ruling:
        while True:
            verdict = trial.run()
            answer = trial.answer(verdict)
            if answer is Answer.SKIP or (answer is Answer.GOOD and verdict.outcome is Outcome.SKIP):
                return Ruling(answer, trial.tally, 0.0, verdict.reason, failed=evidence(verdict))
            trial.count(verdict)
            self.on_run(trial.tally, verdict)
            if is_decided(trial.tally):
                return self._decide(trial)

    def _decide(self, trial: _Trial) -> Ruling:
        good = odds_of_good(trial.tally, self.good, self.bad)
        answer = Answer.GOOD if good > 0.5 else Answer.BAD
        wrong = min(good, 1.0 - good)
        reason = trial.failed.reason if answer is Answer.BAD and trial.failed else ""
        if wrong > self.allowed and self.good.runs and self.bad.runs:
            return Ruling(
                Answer.SKIP, trial.tally, wrong, f"undecided after {trial.tally.runs} runs", trial.passed
            )
        return Ruling(answer, trial.tally, wrong, reason, trial.passed, trial.failed, trial.note)

    def _learn(self, ruling: Ruling) -> Ruling:
        if ruling.answer is Answer.GOOD:
            self.good += ruling.tally
        elif ruling.answer is Answer.BAD:
            self.bad += ruling.tally
        return ruling


def _patchings(case: Case) -> set[_Patching]:
    kernels = (case.kernel, case.next_kernel)
    return {(tuple((one.location, one.pin) for one in kernel.sources), kernel.series) for kernel in kernels}


@dataclass(slots=True)
class _Trial:
    """A candidate under trial."""

    judge: Judge
    cases: tuple[Case, ...]
    tally: Tally = field(default_factory=Tally)
    passed: Evidence | None = None
    failed: Evidence | None = None
    note: str = ""

    def run(self) -> Verdict:
        """One more run, of the first variant whose series applies."""
        self.cases = self.judge.fitting(self.cases)
        verdict = self._attempt()
        while verdict.stage is Stage.SERIES and verdict.outcome is Outcome.FAIL and self.cases[1:]:
            self.cases = self.judge.fitting(self.cases[1:])
            verdict = self._attempt()
        series = self.cases[0].kernel.series or self.cases[0].next_kernel.series
        self.note = f"series {' + '.join(one.name for one in series)}" if series else ""
        return verdict

    def _attempt(self) -> Verdict:
        verdict = self.judge.attempt(self.cases[0])
        if verdict.stage not in (Stage.MACHINE, Stage.SOURCE) and verdict.outcome is not Outcome.BROKEN:
            self.judge.note(self.cases[0], verdict.stage is not Stage.SERIES)
        return verdict

    def answer(self, verdict: Verdict) -> Answer:
        if verdict.outcome is Outcome.BROKEN:
            raise Broken(verdict.reason, hint=verdict.hint, detail=verdict.detail)
        if verdict.outcome is Outcome.SKIP:
            return self.judge.lacking
        if verdict.outcome is Outcome.PASS:
            return Answer.GOOD
        if verdict.stage in UNJUDGED or (verdict.stage is Stage.KEXEC and self._never_boots()):
            return Answer.SKIP
        return Answer.BAD

    def _never_boots(self) -> bool:
        """Whether the kernel that did not come up by kexec does not come up by itself either."""
        case = self.cases[0]
        if case.kernel == case.next_kernel:
            return False  # it had been up
        verdict = self.judge.attempt(replace(case, kernel=case.next_kernel))
        if verdict.outcome is Outcome.BROKEN:
            raise Broken(verdict.reason, hint=verdict.hint, detail=verdict.detail)
        return verdict.stage is Stage.BOOT

    def count(self, verdict: Verdict) -> None:
        failed = verdict.outcome is Outcome.FAIL
        self.tally += Tally(fails=int(failed), passes=int(not failed))
        if failed:
            self.failed = self.failed or evidence(verdict)
        else:
            self.passed = self.passed or evidence(verdict)


def evidence(verdict: Verdict) -> Evidence:
    kernel = verdict.next_kernel or verdict.kernel
    return Evidence(
        verdict.outcome,
        verdict.stage,
        verdict.reason,
        str(verdict.directory),
        kernel.release if kernel else "",
        str(kernel.config) if kernel else "",
    )


def unusable(end: str, name: str, ruling: Ruling) -> UsageError:
    """The error for an end that is not what it was said to be."""
    return UsageError(
        f"the {end} end, {name}, is not {end}: {ruling.text}",
        hint="both ends have to be known before the way between them can be searched",
    )
