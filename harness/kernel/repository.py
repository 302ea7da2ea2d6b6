# SPDX-License-Identifier: GPL-2.0-or-later
"""The GIT provider: one commit out of a repository, in a tree that follows its ref.

Objects are kept in one bare repository for a URL; one on this disk is read where it is. The tree of a ref
stays where it is, so that after a new commit make builds only what that changed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.case import Progress, Source, SourceTree, Update, waiting
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import trees
from harness.kernel.git import ALONE, git
from harness.store import Store, digest, locked

FETCH_SECONDS = 7200.0
# A commit, or a release's tag: neither ever moves, so what the store has of it needs no network.
FIXED = re.compile(r"[0-9a-f]{40}|v\d+\.\d+(\.\d+)?(-rc\d+)?")


def checkout(source: Source, store: Store, progress: Progress) -> SourceTree:
    """The tree of the ref source.pin of the repository source.location.

    A branch is asked for its newest commit; where the repository cannot be reached, the one that was last
    fetched is taken. Raises InfraError where there is none, UsageError where it is no kernel.
    """
    holder = store.workspace("tree", digest("git", source.location, source.place or source.pin))
    deadline = Deadline.after(FETCH_SECONDS, f"the fetch of {source.location}")
    waits = waiting(progress, "source", f"fetches {source.location}")
    with locked(holder / trees.LOCK, deadline, waits=waits):
        record = trees.read_record(holder)
        if (Path(source.location) / "objects").is_dir():
            record = _local(source, record, holder, deadline, progress)
            return trees.source_tree(holder, record)
        if record and FIXED.fullmatch(source.pin) and not source.place:
            return trees.source_tree(holder, record)
        bare = store.workspace("git", digest(source.location))
        try:
            with locked(bare / trees.LOCK, deadline, waits=waits):
                commit = _fetch(source, str(bare / "repository"), deadline, progress)
        except InfraError as error:
            if record is None:
                raise
            progress(Update("source", f"{error.message}; taking {record.origin}"))
            return trees.source_tree(holder, record)
        if record is None or record.digest != digest("git", commit):
            progress(Update("source", f"checking out {source.pin}"))
            record = _check_out(source, str(bare / "repository"), commit, holder, deadline)
    return trees.source_tree(holder, record)


def _local(
    source: Source, record: trees.Record | None, holder: Path, deadline: Deadline, progress: Progress
) -> trees.Record:
    """The holder's record after its tree was made that of the commit, from a git directory on this disk."""
    parsed = git(
        *("--git-dir", source.location, "rev-parse", "--quiet", "--verify", f"{source.pin}^{{commit}}"),
        deadline=deadline,
        check=False,
    )
    if parsed.status != 0:
        raise UsageError(f"there is no commit {source.pin} in {source.location}")
    commit = parsed.output.strip()
    if record and record.digest == digest("git", commit):
        return record
    progress(Update("source", f"checking out {commit[:12]}"))
    return _check_out(source, source.location, commit, holder, deadline)


def _check_out(
    source: Source, repository: str, commit: str, holder: Path, deadline: Deadline
) -> trees.Record:
    """Make the holder's tree that of the commit, touching only the files that differ."""
    tree, index = holder / trees.TREE, holder / "index"
    if trees.read_record(holder) is None:  # new, or left half done
        shutil.rmtree(tree, ignore_errors=True)
        index.unlink(missing_ok=True)
    (holder / "index.lock").unlink(missing_ok=True)
    trees.forget_record(holder)
    tree.mkdir(exist_ok=True)
    git(
        *("--git-dir", repository, "--work-tree", tree),
        *("read-tree", "--reset", "-u", commit),
        cwd=tree,
        env={**ALONE, "GIT_INDEX_FILE": str(index)},
        deadline=deadline,
    )
    if not trees.is_kernel(tree):
        raise UsageError(f"no kernel tree: {source.pin} of {source.location}")
    origin = f"{source.location} {source.pin} ({commit[:12]})"
    record = trees.Record(digest("git", commit), trees.version(tree), origin)
    trees.write_record(holder, record)
    return record


def _fetch(source: Source, repository: str, deadline: Deadline, progress: Progress) -> str:
    """The commit that the ref stands for now, with its files in the bare repository."""
    progress(Update("source", f"fetching {source.pin} of {source.location}"))
    git("init", "--quiet", "--bare", repository, deadline=deadline)
    fetched = git(
        *("--git-dir", repository),
        *("fetch", "--quiet", "--depth=1", "--no-tags", "--", source.location, source.pin),
        deadline=deadline,
        check=False,
    )
    if fetched.status != 0:
        raise InfraError(f"cannot fetch {source.pin} of {source.location}", detail=fetched.tail)
    return git("--git-dir", repository, "rev-parse", "FETCH_HEAD^{commit}", deadline=deadline).output.strip()
