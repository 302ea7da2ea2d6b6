# SPDX-License-Identifier: GPL-2.0-or-later
"""Histories with a fault planted in one commit, and an Attempt that suffers what the commits have in them."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness import command
from harness.bisect.docket import Docket, Teller
from harness.bisect.history import Bisection, Repository, Terms
from harness.bisect.judge import Judge
from harness.bisect.odds import per_turn
from harness.bisect.search import Ends, Finding, Kernels, Search, Side
from harness.bisect.state import State
from harness.case import (
    Case,
    KernelDefinition,
    MachineSpec,
    Outcome,
    Provider,
    Series,
    Source,
    Stage,
    Update,
    Verdict,
)
from harness.deadline import Deadline

FAKELINUX = Path(__file__).resolve().parents[1] / "fakelinux"
IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "An Author",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
}


@dataclass
class History:
    """A kernel's git tree that grows by commits; each appends its text to a file. commits: the oldest
    first.
    """

    tree: Path
    commits: list[str] = field(default_factory=list)

    def git(self, script: str) -> str:
        deadline = Deadline.after(60, "git in a test")
        return command.run(["sh", "-ec", script], cwd=self.tree, env=IDENTITY, deadline=deadline).output

    def grow(self, count: int, faults: dict[int, str], mends: dict[int, int] | None = None) -> None:
        """So many commits; commit N (from 0) adds the line faults[N] to a file of its own, others a
        harmless one.

        mends: commit N takes the fault of another one out.
        """
        parts = [self.tree / "kernel" / f"part{number}.h" for number in range(count)]
        for part in parts:
            part.write_text("")
        with (self.tree / "kernel/fork.c").open("a") as file:
            file.writelines(f'#include "{part.name}"\n' for part in parts)
        script = ["git add -A; git commit -q --amend -m base"]
        for number, part in enumerate(parts):
            line = faults.get(number, f"int harmless_{number};")
            mended = f"; : > {parts[mends[number]]}" if mends and number in mends else ""
            subject = "fault" if number in faults else "change"
            script.append(f"echo '{line}' > {part}{mended}; git commit -qam 'kernel: {subject} {number}'")
        self.git("\n".join(script))
        self.commits = self.git("git rev-list --reverse HEAD").split()


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A history of the fake kernel, of one commit."""
    tree = Path(shutil.copytree(FAKELINUX, tmp_path / "linux"))
    made = History(tree)
    made.git("git init -q -b main; git add -A; git commit -qm base")
    return made


@dataclass
class Sufferer:
    """An Attempt that reads the commits' faults: words after FAULT= in any file of kernel/.

    from_x fails where the kernel that goes has it, to_x where that which comes does, both_x where both do,
    nobuild is no build, noboot no first boot, flake fails one time in three. broken: raise at so many runs.
    A series takes where the commit has the word of its name.
    """

    repository: Repository
    cases: list[Case] = field(default_factory=list)
    broken: int = 0
    known: dict[str, set[str]] = field(default_factory=dict)
    dice: random.Random = field(default_factory=lambda: random.Random(11))

    def __call__(self, case: Case) -> Verdict:
        self.cases.append(case)
        if len(self.cases) == self.broken:
            return self._verdict(Outcome.BROKEN, "the disk is full")
        going, coming = self._faults(case.kernel), self._faults(case.next_kernel)
        for kernel, faults in ((case.kernel, going), (case.next_kernel, coming)):
            if any(one.name not in faults for one in kernel.series):
                return self._verdict(Outcome.FAIL, "the patch does not apply", Stage.SERIES)
        if "nobuild" in going | coming:
            return self._verdict(Outcome.FAIL, "it does not compile", Stage.BUILD)
        if "noboot" in going:
            return self._verdict(Outcome.FAIL, "the agent did not come up", Stage.BOOT)
        if "noboot" in coming:
            return self._verdict(Outcome.FAIL, "the next kernel did not reach its agent", Stage.KEXEC)
        bad = {"from"} & going | {"to"} & coming | {"both"} & going & coming
        if "flake" in coming and self.dice.random() < 1 / 3:
            bad |= {"flake"}
        if bad:
            return self._verdict(Outcome.FAIL, f"page 3: zeroes ({', '.join(sorted(bad))})")
        return self._verdict(Outcome.PASS, "")

    def _faults(self, kernel: KernelDefinition) -> set[str]:
        pin = kernel.sources[0].pin
        if pin not in self.known:
            text = self.repository.run("grep", "-h", "FAULT=", pin, check=False).output
            self.known[pin] = set(re.findall(r"FAULT=(\w+)", text))
        return self.known[pin]

    def _verdict(self, outcome: Outcome, reason: str, stage: Stage = Stage.SCENARIOS) -> Verdict:
        return Verdict(outcome, reason, Path("/traces"), stage=stage)


@dataclass
class Bench:
    """A search among a history's commits that suffers rather than builds."""

    history: History
    directory: Path
    confidence: float = 0.99
    updates: list[Update] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    broken: int = 0
    state: State | None = None
    sufferer: Sufferer | None = None
    repository: Repository | None = None
    series: tuple[tuple[Series, ...], ...] = ((),)

    def search(self, side: str = "both", good: int = 0, bad: int = -1) -> list[Finding]:
        self.state = self.state or State.create(self.directory / "state", ("bisect",))
        self.repository = Repository.borrow(self.history.tree, self.state.directory / "repository")
        self.sufferer = Sufferer(self.repository, broken=self.broken)
        commits = self.history.commits
        case = Case(KERNEL, KERNEL, "minimal", MachineSpec(), ("a",))
        judge = Judge(self.sufferer, per_turn(self.confidence, 7))
        searching = Search(
            self.repository,
            Bisection(self.repository, Terms()),
            Ends(commits[bad], (commits[good],), self.skipped),
            Kernels(self.variants, case),
            Docket(judge, self.state, Teller(self.updates.append)),
        )
        return searching.run(Side(side))

    def variants(self, commit: str, place: str) -> tuple[KernelDefinition, ...]:
        source = Source(Provider.GIT, "repository", pin=commit, place=place)
        return tuple(replace(KERNEL, sources=(source,), series=one) for one in self.series)


KERNEL = KernelDefinition("k", (), (), ())


@pytest.fixture
def bench(history: History, tmp_path: Path) -> Callable[..., Bench]:
    """A bench over a history of so many commits with these faults."""

    def make(
        count: int, faults: dict[int, str], confidence: float = 0.99, mends: dict[int, int] | None = None
    ) -> Bench:
        history.grow(count, {number: f"/* FAULT={words} */" for number, words in faults.items()}, mends)
        return Bench(history, tmp_path, confidence)

    return make
