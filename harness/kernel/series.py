# SPDX-License-Identifier: GPL-2.0-or-later
"""The second stage: a series of patches on a source tree, with git am.

git sees only the files that the series touches, in a repository of a few files that lasts as long as the
application: nothing has to be added to an index of 100,000 files, and where a patch does not apply no tree
has been changed. The patched tree is the source tree in hard links with those files on top.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.case import PatchedTree, Progress, Series, SourceTree, Update, waiting
from harness.deadline import Deadline
from harness.errors import PatchError
from harness.kernel import files, patches, trees
from harness.kernel.git import ALONE, NOBODY, git
from harness.store import Store, digest, disk_errors, locked

APPLY_SECONDS = 900.0
# Every name that a diff can touch: also files that are only renamed, removed, or change their mode.
TOUCHED = re.compile(
    r"^(?:--- a/|\+\+\+ b/|(?:rename|copy) (?:from|to) )([^\t\n]+)|^diff --git a/(.+) b/\2$", re.MULTILINE
)
HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? .*$", re.MULTILINE)
REFUSED = re.compile(r"^error: patch failed: (.+):(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a series makes of the files that it touches; a touched name that is not in directory is gone."""

    directory: Path
    touched: tuple[str, ...]
    subjects: tuple[str, ...]


def apply(
    tree: SourceTree, series: tuple[Series, ...], store: Store, progress: Progress, upto: int | None = None
) -> PatchedTree:
    """The tree with the patches of all the series applied, or as it is for none.

    upto: only the first so many patches, in a tree of their own where one patch after the other can be tried.
    Raises PatchError that names the first patch that does not apply, the file and the hunk.
    """
    if not series:
        return PatchedTree(tree.path, tree.digest, tree.version, (), tree.origin)
    name = " + ".join(one.name for one in series)
    deadline = Deadline.after(APPLY_SECONDS, f"applying {name}")
    gathered = patches.gather(series, store, progress)
    found = gathered[:upto]
    content = digest(tree.digest, *found) if found else tree.digest
    overlay = _overlay(tree, found, content, store, deadline, progress)
    place = [patches.place(one) for one in series]
    steps = () if upto is None else ("steps",)
    holder = store.workspace("tree", digest("patched", str(tree.path), *place, *steps))
    waits = waiting(progress, "series", "is at the same tree")
    # A record is written whole and removed before its tree changes, so it can be read without the lock,
    # which a build of the same tree may hold for long.
    if not _is_laid(holder, content):
        with disk_errors(store.root), locked(holder / trees.LOCK, deadline, waits=waits):
            if not _is_laid(holder, content):
                trees.forget_record(holder)
                with trees.still(tree, deadline):
                    _lay(tree.path, overlay, holder / trees.TREE, progress)
                trees.write_record(holder, trees.Record(content, tree.version, tree.origin))
    count = str(len(found)) if upto is None else f"{len(found)} of {len(gathered)}"
    progress(Update("series", f"{count} patches of {name}", done=1.0, finished=True))
    return PatchedTree(holder / trees.TREE, content, tree.version, overlay.subjects, tree.origin)


def _is_laid(holder: Path, content: str) -> bool:
    record = trees.read_record(holder)
    return record is not None and record.digest == content


def _lay(source: Path, overlay: Overlay, target: Path, progress: Progress) -> None:
    """Make target the source tree with the overlay on top."""
    wanted = {name: f"{source}/{name}" for name in files.walk(source)}
    for name in overlay.touched:
        wanted.pop(name, None)
    wanted |= {name: f"{overlay.directory}/{name}" for name in files.walk(overlay.directory)}
    files.follow(wanted, target, lambda done: progress(Update("series", "laying out the tree", done=done)))


def _overlay(
    tree: SourceTree,
    found: tuple[Path, ...],
    content: str,
    store: Store,
    deadline: Deadline,
    progress: Progress,
) -> Overlay:
    """The overlay in the store, made where it is not there yet."""

    def make(draft: Path) -> None:
        with trees.still(tree, deadline):
            touched = _stage(tree.path, found, draft / "files")
        subjects = _am(found, draft, deadline, progress)
        text = json.dumps({"touched": touched, "subjects": subjects}, indent=1)
        (draft / "series.json").write_text(text + "\n", encoding="utf-8")

    waits = waiting(progress, "series", "applies the same patches")
    entry = store.produce("series", content, make, deadline=deadline, waits=waits)
    saved = json.loads((entry / "series.json").read_text(encoding="utf-8"))
    return Overlay(entry / "files", tuple(saved["touched"]), tuple(saved["subjects"]))


def _stage(tree: Path, found: tuple[Path, ...], target: Path) -> list[str]:
    """Copy the files that the patches touch; return their names, also those that are not there yet."""
    names = {name for patch in found for name in touched(patch)}
    target.mkdir()
    for name in sorted(names):
        if (tree / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / name, target / name)
    return sorted(names)


def touched(patch: Path) -> Iterator[str]:
    """The names of the files that a patch changes, adds or removes."""
    for match in TOUCHED.finditer(patch.read_text(encoding="utf-8", errors="replace")):
        name = match[1] or match[2]
        if not (name.startswith("/") or ".." in Path(name).parts):
            yield name


def _am(found: tuple[Path, ...], draft: Path, deadline: Deadline, progress: Progress) -> list[str]:
    """Apply the patches one by one to draft/files; return the subjects of what was committed."""
    work, repository = draft / "files", draft / "repository"
    arguments = ("-c", "core.autocrlf=false", f"--git-dir={repository}", f"--work-tree={work}")
    env = {**ALONE, **NOBODY}
    git("init", "--quiet", "--template=", "--bare", repository, env=env, deadline=deadline)
    git(*arguments, "add", "--force", "--all", ".", cwd=work, env=env, deadline=deadline)
    git(*arguments, "commit", "--quiet", "--allow-empty", "-m", "base", cwd=work, env=env, deadline=deadline)
    for index, patch in enumerate(found):
        progress(Update("series", f"applying {patch.name}", done=index / len(found)))
        done = git(
            *arguments, "am", "--quiet", patch.resolve(), cwd=work, env=env, deadline=deadline, check=False
        )
        if done.status != 0:
            raise _refusal(patch, done.output)
    log = git(*arguments, "log", "--reverse", "--format=%s", cwd=work, env=env, deadline=deadline)
    shutil.rmtree(repository)
    return log.output.splitlines()[1:]


def _refusal(patch: Path, output: str) -> PatchError:
    """The error for a patch that git am refused, from what git said and the patch's own hunks."""
    text = patch.read_text(encoding="utf-8", errors="replace")
    refused = [_hunk(text, match[1], int(match[2])) for match in REFUSED.finditer(output)]
    errors = [
        line.removeprefix("error: ") for line in output.splitlines() if line.startswith(("error:", "fatal:"))
    ]
    where = "; ".join(title for title, _ in refused) or (errors or [output.strip() or "git am failed"])[0]
    return PatchError(
        f"{patch.name} does not apply: {where}",
        hint="the series is for another version of the tree, or a patch before it is missing",
        detail="\n\n".join(hunk for _, hunk in refused) or output,
    )


def _hunk(patch: str, name: str, line: int) -> tuple[str, str]:
    """Which hunk of the patch starts at that line of the file, in words, and its text."""
    _, _, section = patch.partition(f"\n+++ b/{name}\n")
    section = re.split(r"^diff --git |^-- $", section, maxsplit=1, flags=re.MULTILINE)[0]
    hunks = list(HUNK.finditer(section))
    for number, hunk in enumerate(hunks, 1):
        if int(hunk[1]) == line:
            end = hunks[number].start() if number < len(hunks) else len(section)
            return f"{name}, hunk {number} of {len(hunks)} ({hunk[0]})", section[hunk.start() : end].rstrip()
    return f"{name}, line {line}", section.rstrip()
