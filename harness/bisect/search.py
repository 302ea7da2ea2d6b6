# SPDX-License-Identifier: GPL-2.0-or-later
"""The search among commits: both ends are confirmed, the guilty side is named, git chooses, a revert proves.

Live update has a kernel that goes and one that comes. What fails between two old ends of a history may be the
fault of either, so the sides are told apart first: the bad kernel goes to the good one, and the good one to
the bad one; the side is searched with whose bad kernel it fails, while the other side is held at the good
end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.bisect.docket import Docket
from harness.bisect.history import Bisection, Commit, Repository
from harness.bisect.judge import Answer, Ruling, unusable
from harness.bisect.odds import Tally
from harness.case import Case, KernelDefinition
from harness.errors import UsageError
from harness.kernel import abi

_NO_RUNS = Tally()


class Side(StrEnum):
    """Which kernel of a live update is searched: that which goes, that which comes, or both as one."""

    FROM = "from"
    TO = "to"
    BOTH = "both"

    @property
    def words(self) -> str:
        return {
            Side.FROM: "the kernel that goes (from)",
            Side.TO: "the kernel that comes (to)",
            Side.BOTH: "both kernels together",
        }[self]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Makes definitions out of commits. variants: of a commit, the definitions to try in their order.

    held: what the other side is held at instead of the good end, or None. case: everything but the kernels.
    """

    variants: Callable[[str, str], tuple[KernelDefinition, ...]]
    case: Case
    held: KernelDefinition | None = None

    def cases(self, side: Side, commit: str, other: str) -> tuple[Case, ...]:
        """The cases in which `commit` is on that side, and `other` (a commit) on the other one."""
        ours = self.variants(commit, "candidate")
        if side is Side.BOTH:
            return tuple(replace(self.case, kernel=one, next_kernel=one) for one in ours)
        if self.held is None and commit == other:
            return self.cases(Side.BOTH, commit, other)
        theirs = (self.held,) if self.held else self.variants(other, "held")
        pairs = [(one, held) for one in ours for held in theirs]
        if side is Side.TO:
            pairs = [(held, one) for one, held in pairs]
        return tuple(replace(self.case, kernel=old, next_kernel=new) for old, new in pairs)


@dataclass(frozen=True, slots=True)
class Ends:
    """What is known beforehand: a bad commit, good ones (at least one), and some that cannot be judged."""

    bad: str
    good: tuple[str, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search came to. culprit: None where only commits are left that cannot be judged (suspects).

    remark: why this side was searched. last_good: the culprit's parent, or the nearest that was judged.
    revert: what became of the bad end without the culprit. steps, runs: of this search alone, ends excluded.
    """

    side: Side
    remark: str
    suspects: tuple[Commit, ...]
    diffstat: str
    last_good: tuple[Commit, Ruling]
    first_bad: tuple[Commit, Ruling]
    revert: str
    steps: int
    runs: int

    @property
    def culprit(self) -> Commit | None:
        return self.suspects[0] if len(self.suspects) == 1 else None


@dataclass(slots=True)
class Search:
    """A search among commits under way. foresee: is told of the commit that is
    judged, and of those that may be next."""

    repository: Repository
    bisection: Bisection
    ends: Ends
    kernels: Kernels
    docket: Docket
    foresee: Callable[[str, list[str]], None] = lambda commit, following: None
    reverts: bool = True

    def run(self, side: Side) -> list[Finding]:
        """The culprits: one, or one for each side where both are at fault. Raises UsageError for wrong
        ends.
        """
        wanted = self._ends(side)
        if side is not Side.BOTH or self.kernels.held:
            return [self._search(side, "asked for")]
        return [self._search(guilty, wanted_by) for guilty, wanted_by in self._guilty(wanted)]

    def patches(self) -> Finding:
        """The culprit among the patches of a series, where a kernel that lacks a feature is a good one."""
        self.docket.judge.lacking = Answer.GOOD
        self._ends(Side.BOTH)
        return self._search(Side.BOTH, "the series is applied to both")

    def rule(self, side: Side, commit: str, title: str, left: int = 0) -> Ruling:
        """The ruling on a commit on that side, with the good end on the other."""
        good = self.ends.good[0]
        if problem := self._handover(side, commit, good):
            return Ruling(Answer.SKIP, tally=_NO_RUNS, wrong=0.0, reason=problem)
        name = self._name(commit)
        return self.docket.rule(
            _key(side, commit), title, name, lambda: self.kernels.cases(side, commit, good), left
        )

    # ---- the ends ------------------------------------------------------------------------------

    def _ends(self, side: Side) -> dict[str, Ruling]:
        """Confirm both: the bad one first, whose rate of failures tells how often the good one has to
        pass.
        """
        bad, good = self.ends.bad, self.ends.good[0]
        cases = lambda: self.kernels.cases(side, bad, good)  # noqa: E731
        ruled = self.docket.confirm_bad(_key(side, bad), "bad end", self._name(bad), cases)
        if ruled.answer is not Answer.BAD:
            raise unusable("bad", self._name(bad), ruled)
        passed = self.docket.rule(
            _key(side, good), "good end", self._name(good), lambda: self.kernels.cases(side, good, good)
        )
        if passed.answer is not Answer.GOOD:
            raise unusable("good", self._name(good), passed)
        return {bad: ruled, good: passed}

    def _guilty(self, confirmed: dict[str, Ruling]) -> list[tuple[Side, str]]:
        """The sides to search, each with the reason."""
        bad, good = self.ends.bad, self.ends.good[0]
        if difference := _difference(self._versions(bad), self._versions(good)):
            return [
                (Side.BOTH, f"the ends do not hand over to each other ({difference}): they move together")
            ]
        leaves = self.rule(Side.FROM, bad, "bad to good")
        comes = self.rule(Side.TO, bad, "good to bad")
        guilty = [side for side, one in ((Side.FROM, leaves), (Side.TO, comes)) if one.answer is Answer.BAD]
        match guilty:
            case [Side.FROM]:
                return [(Side.FROM, f"it fails from bad to good, and not from good to bad ({comes.answer})")]
            case [Side.TO]:
                return [(Side.TO, f"it fails from good to bad, and not from bad to good ({leaves.answer})")]
            case []:
                return [(Side.BOTH, "neither side fails with the good kernel on the other: it takes both")]
        return [
            (one, "it fails with the bad kernel on either side: each is searched by itself") for one in guilty
        ]

    def _versions(self, commit: str) -> dict[str, str]:
        names = [name for name in self.repository.names(commit, abi.FOLDER) if name.endswith(".h")]
        return dict(abi.parse(self.repository.text(commit, name) for name in names))

    def _handover(self, side: Side, commit: str, good: str) -> str:
        """Why a commit cannot be judged against the held one: another version of what is handed over."""
        if side is Side.BOTH or self.kernels.held:
            return ""
        difference = _difference(self._versions(commit), self._versions(good))
        return f"it does not hand over to the held kernel: {difference}" if difference else ""

    # ---- the way -------------------------------------------------------------------------------

    def _search(self, side: Side, remark: str) -> Finding:
        bisection, before = self.bisection, (self.docket.counted, self.docket.runs)
        bisection.start(self.ends.good, self.ends.bad, self.ends.skipped)
        rulings: dict[str, Ruling] = {}
        while commit := bisection.next():
            self.foresee(commit, bisection.candidates_after(commit))
            title = f"step {len(rulings) + 1}"
            rulings[commit] = self.rule(side, commit, title, bisection.steps_left())
            bisection.mark(commit, rulings[commit].answer)
            self._write_log(side)
        self.foresee("", [])
        self._write_log(side)
        steps, runs = self.docket.counted - before[0], self.docket.runs - before[1]
        found = bisection.suspects()
        suspects = tuple(self.repository.describe(sha) for sha in found)
        culprit = suspects[0] if len(suspects) == 1 else None
        first = culprit.sha if culprit else self._ruled(found[0], rulings, side)
        return Finding(
            side=side,
            remark=remark,
            suspects=suspects,
            diffstat=self.repository.diffstat(culprit.sha) if culprit else "",
            last_good=self._last_good(side, found[-1], rulings),
            first_bad=(self.repository.describe(first), self._recall(side, first, rulings)),
            revert=self._revert(side, culprit.sha) if culprit and self.reverts else "",
            steps=steps,
            runs=runs,
        )

    def _ruled(self, commit: str, rulings: dict[str, Ruling], side: Side) -> str:
        return commit if commit in rulings else self.ends.bad

    def _recall(self, side: Side, commit: str, rulings: dict[str, Ruling]) -> Ruling:
        known = self.docket.state.rulings
        for key in (_key(side, commit), _key(Side.BOTH, commit)):
            if commit not in rulings and key in known:
                return known[key]
        return rulings.get(commit) or Ruling(Answer.SKIP, _NO_RUNS, 0.0, "known from an earlier bisection")

    def _last_good(self, side: Side, oldest: str, rulings: dict[str, Ruling]) -> tuple[Commit, Ruling]:
        """The parent of the oldest suspect, where that was judged; else the last commit that was good."""
        parents = self.repository.commits("--parents", "--max-count=1", oldest)[1:]
        good = [sha for sha, ruling in rulings.items() if ruling.answer is Answer.GOOD]
        known = [*(sha for sha in parents if sha in good or sha in self.ends.good), *reversed(good)]
        commit = (*known, self.ends.good[0])[0]
        return self.repository.describe(commit), self._recall(side, commit, rulings)

    def _revert(self, side: Side, culprit: str) -> str:
        """Whether the bad end is mended without the culprit."""
        reverted = self.repository.reverted(culprit, self.ends.bad)
        if reverted is None:
            return "it does not revert by itself on the bad end"
        good = self.ends.good[0]
        ruling = self.docket.rule(
            _key(side, f"revert {culprit}"),
            "revert",
            f"the bad end without {culprit[:12]}",
            lambda: self.kernels.cases(side, reverted, good),
        )
        if ruling.answer is Answer.GOOD:
            runs = f"{ruling.tally.passes} of {ruling.tally.runs} runs passed"
            return f"reverting it on the bad end mends it ({runs})"
        if ruling.answer is Answer.BAD:
            return f"reverting it on the bad end does not mend it: {ruling.reason}"
        return f"the bad end without it cannot be judged: {ruling.reason}"

    def _name(self, commit: str) -> str:
        one = self.repository.describe(commit)
        return f"{one.short} {one.subject}"

    def _write_log(self, side: Side) -> None:
        path = self.docket.state.directory / f"bisect-{side}.log"
        path.write_text(self.bisection.log(), encoding="utf-8")


def check_ends(repository: Repository, good: str, bad: str) -> None:
    """Raises UsageError where git could not go from one to the other."""
    if good == bad:
        raise UsageError("the good end and the bad end are the same commit")
    if not repository.is_ancestor(good, bad):
        raise UsageError(
            f"{good[:12]} (good) is no ancestor of {bad[:12]} (bad)",
            hint="for what got better, swap them, and name them with --term-good and --term-bad",
        )


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    """What two kernels that hand over to each other cannot differ in: "luo v4 and v5", or ""."""
    return ", ".join(
        f"{name} {one[name]} and {other[name]}"
        for name in sorted(one.keys() & other.keys())
        if one[name] != other[name]
    )


def _key(side: Side, commit: str) -> str:
    return f"{side} {commit}"
