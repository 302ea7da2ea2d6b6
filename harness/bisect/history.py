# SPDX-License-Identifier: GPL-2.0-or-later
"""git's own bisection, in a bare repository that borrows the objects of the user's.

The user's tree, its HEAD and its refs stay as they are; what git notes (BISECT_LOG, refs/bisect/*) is in
ours, so that `git bisect log`, skip, terms and replay are git's. See git-bisect(1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import command
from harness.bisect.judge import Answer
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel.git import ALONE, NOBODY, git

GIT_SECONDS = 900.0
FOUND = re.compile(r"^([0-9a-f]{40,64}) is the first (\S+) commit$", re.MULTILINE)
ONLY_SKIPPED = "only 'skip'ped commits left"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the two kinds of commits are called (git bisect start --term-old --term-new)."""

    good: str = "good"
    bad: str = "bad"

    def of(self, answer: Answer) -> str:
        return {Answer.GOOD: self.good, Answer.BAD: self.bad, Answer.SKIP: "skip"}[answer]


@dataclass(frozen=True, slots=True)
class Commit:
    """What a person wants to know of a commit."""

    sha: str
    author: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        return self.sha[:12]

    @property
    def line(self) -> str:
        """As a Fixes: tag has it."""
        return f'{self.short} ("{self.subject}")'


@dataclass(frozen=True, slots=True)
class Repository:
    """A git directory that is read, and written to only where it is our own."""

    path: Path

    @classmethod
    def borrow(cls, tree: Path, path: Path) -> Repository:
        """A new bare repository at `path` with the objects of the one that `tree` belongs to, and no refs."""
        theirs = Repository.of(tree)
        git("init", "--quiet", "--bare", "--template=", path, deadline=_deadline(), env=ALONE)
        (path / "objects" / "info").mkdir(parents=True, exist_ok=True)
        (path / "objects" / "info" / "alternates").write_text(f"{theirs.path / 'objects'}\n")
        shallow = theirs.path / "shallow"
        if shallow.exists():
            (path / "shallow").write_bytes(shallow.read_bytes())
        return cls(path)

    @classmethod
    def of(cls, tree: Path) -> Repository:
        """The repository that a directory belongs to (of a linked worktree: the main one's)."""
        done = git("rev-parse", "--git-common-dir", cwd=tree, deadline=_deadline(), check=False)
        if done.status != 0:
            raise UsageError(f"{tree} is in no git repository", hint="a bisection needs the history")
        return cls((tree / done.output.strip()).resolve())

    def run(
        self, *words: str | Path, check: bool = True, env: dict[str, str] | None = None
    ) -> command.Completed:
        return git(
            "--git-dir", self.path, *words, deadline=_deadline(), check=check, env={**ALONE, **(env or {})}
        )

    def commit(self, name: str) -> str:
        """The commit that a revision names; raises UsageError."""
        done = self.run(
            "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}", check=False
        )
        if done.status != 0:
            raise UsageError(f"there is no commit {name!r} in {self.path}")
        return done.output.strip()

    def commits(self, *words: str) -> list[str]:
        """What `git rev-list` says to the words."""
        done = self.run("rev-list", *words, "--", check=False)
        if done.status != 0:
            raise UsageError(f"git cannot list {' '.join(words)}", detail=done.tail)
        return done.output.split()

    def describe(self, sha: str) -> Commit:
        line = self.run("log", "-1", "--format=%H%x00%an <%ae>%x00%as%x00%s", sha, "--").output
        found, author, date, subject = line.split("\0", 3)
        return Commit(found, author, date, subject)

    def diffstat(self, sha: str) -> str:
        return self.run("show", "--stat=72", "--summary", "--format=", sha, "--").output.strip("\n")

    def text(self, sha: str, path: str) -> str:
        """A file of a commit, or "" where it has none."""
        done = self.run("cat-file", "blob", f"{sha}:{path}", check=False)
        return done.output if done.status == 0 else ""

    def names(self, sha: str, folder: str) -> list[str]:
        done = self.run("ls-tree", "--name-only", sha, f"{folder}/", check=False)
        return done.output.split() if done.status == 0 else []

    def is_ancestor(self, old: str, new: str) -> bool:
        return self.run("merge-base", "--is-ancestor", old, new, check=False).status == 0

    def reverted(self, culprit: str, tip: str) -> str | None:
        """A commit on top of `tip` without what `culprit` did, or None where that does not revert by
        itself.
        """
        index = {"GIT_INDEX_FILE": str(self.path / "revert.index"), **NOBODY}
        try:
            patch = self.run("diff", "--binary", "--full-index", culprit, f"{culprit}^").output + "\n"
            self.run("read-tree", tip, env=index)
            file = self.path / "revert.patch"
            file.write_text(patch, encoding="utf-8")
            applied = self.run("apply", "--cached", "--3way", file, env=index, check=False)
            conflicts = self.run("ls-files", "--unmerged", env=index, check=False)
            if applied.status != 0 or conflicts.output.strip():
                return None
            tree = self.run("write-tree", env=index).output.strip()
            text = f"Revert {culprit}"
            return self.run("commit-tree", tree, "-p", tip, "-m", text, env=index).output.strip()
        except InfraError:
            return None
        finally:
            (self.path / "revert.index").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Bisection:
    """A `git bisect` in a repository of ours. Each step: `next`, judge it, `mark` it."""

    repository: Repository
    terms: Terms

    def start(self, good: Sequence[str], bad: str, skipped: Sequence[str] = ()) -> None:
        """Begin, forgetting one that went on here."""
        self.repository.run("bisect", "reset", check=False)
        self.repository.run("update-ref", "--no-deref", "HEAD", bad)  # git insists on having one
        terms = (f"--term-good={self.terms.good}", f"--term-bad={self.terms.bad}")
        done = self.repository.run("bisect", "start", "--no-checkout", *terms, bad, *good, check=False)
        if done.status != 0:
            raise UsageError("git cannot bisect between these commits", detail=done.tail)
        if skipped:
            self.repository.run("bisect", "skip", *skipped, check=False)

    def next(self) -> str | None:
        """The commit to judge next, or None where the search is over."""
        if self.culprit() or not self._left():
            return None
        done = self.repository.run("rev-parse", "--quiet", "--verify", "BISECT_HEAD", check=False)
        return done.output.strip() or None

    def mark(self, commit: str, answer: Answer) -> None:
        done = self.repository.run("bisect", self.terms.of(answer), commit, check=False)
        if done.status not in (0, 2, 10):
            raise InfraError("git bisect failed", detail=done.tail)

    def culprit(self) -> str | None:
        """The first bad commit, once only that is left."""
        suspects = self.suspects()
        return suspects[0] if len(suspects) == 1 else None

    def suspects(self) -> list[str]:
        """The commits that can still be the first bad one, the newest first."""
        return self.repository.commits(self._bad, *(f"^{ref}" for ref in self._refs("good")))

    def candidates_after(self, commit: str) -> list[str]:
        """What git would choose next if the commit were found bad, and if it were found good."""
        goods = [f"^{ref}" for ref in self._refs("good")]
        choices = [
            self.repository.commits("--bisect", commit, *goods),
            self.repository.commits("--bisect", self._bad, *goods, f"^{commit}"),
        ]
        return [choice[0] for choice in choices if choice and choice[0] != commit]

    def steps_left(self) -> int:
        """git's own estimate."""
        goods = (f"^{ref}" for ref in self._refs("good"))
        said = self.repository.run("rev-list", "--bisect-vars", self._bad, *goods, "--").output
        match = re.search(r"^bisect_steps=(\d+)", said, re.MULTILINE)
        return int(match[1]) if match else 0

    def log(self) -> str:
        """What `git bisect replay` takes."""
        done = self.repository.run("bisect", "log", check=False)
        return done.output + "\n" if done.status == 0 else ""

    def _left(self) -> bool:
        skipped = {self.repository.commit(ref) for ref in self._refs("skip")}
        bad = self.repository.commit(self._bad)
        return bool(set(self.suspects()) - skipped - {bad})

    @property
    def _bad(self) -> str:
        return f"refs/bisect/{self.terms.bad}"

    def _refs(self, kind: str) -> list[str]:
        name = {"good": self.terms.good, "skip": "skip"}[kind]
        return self.repository.run(
            "for-each-ref", "--format=%(refname)", f"refs/bisect/{name}-*"
        ).output.split()


def read_log(text: str) -> tuple[Terms, dict[str, list[str]]]:
    """The terms and the commits by answer ("good", "bad", "skip") of a `git bisect log`."""
    terms = Terms()
    marks: dict[str, list[str]] = {"good": [], "bad": [], "skip": []}
    old = re.search(r"--term-(?:old|good)[= ]'?([\w-]+)", text)
    new = re.search(r"--term-(?:new|bad)[= ]'?([\w-]+)", text)
    terms = Terms(old[1] if old else terms.good, new[1] if new else terms.bad)
    names = {terms.good: "good", "old": "good", terms.bad: "bad", "new": "bad", "skip": "skip"}
    for word, shas in re.findall(r"^git bisect (\S+) (.+)$", text, re.MULTILINE):
        if kind := names.get(word):
            marks[kind] += re.findall(r"[0-9a-f]{40,64}", shas)
    for kind, sha in re.findall(r"^# (\S+): \[([0-9a-f]{40,64})\]", text, re.MULTILINE):
        if kind in names and sha not in marks[names[kind]]:
            marks[names[kind]].append(sha)
    return terms, marks


def _deadline() -> Deadline:
    return Deadline.after(GIT_SECONDS, "git")
