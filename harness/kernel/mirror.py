# SPDX-License-Identifier: GPL-2.0-or-later
"""The TREE provider: a copy in the store that follows a directory of the user's, which is only ever read.

The kernel refuses to be built out of a tree that has been built in, and a user edits while we compile;
both are why there is a copy. It is brought up to date by looking at every file's stat data, as git does,
and its digest is that of the files' content: a commit that is amended or a file that is touched does not
make another kernel, and an edit that is not committed does.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.case import PatchedTree, Progress, Source, SourceTree, Update, waiting
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.kernel import files, trees
from harness.kernel.git import git
from harness.store import DIGEST_LENGTH, Store, digest, locked

COPY_SECONDS = 1800.0
MANIFEST = "manifest.json"
# What an in-tree build leaves in a directory that is no git repository; `make mrproper` knows it all.
BUILT = (
    *("*.o", "*.a", "*.ko", "*.mod", ".*.cmd", ".*.d", ".config", ".config.old", "System.map"),
    # Not vmlinux*: vmlinux.lds.S and vmlinux.lds.h are sources.
    *("vmlinux", "vmlinux.lds", "vmlinux.map", "vmlinux.unstripped", "vmlinux.bin", "vmlinux.bin.*"),
)
BUILT_BELOW = ("include/config/", "include/generated/", "arch/x86/include/generated/", ".git/")
# A tree may belong to somebody else, and nothing of ours may start a daemon in it.
TRUSTING = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
DIFF_HEAD = b"diff --git "
# The files of a tree whose stat data have not changed: name -> (stat data, digest of the content).
Manifest = dict[str, tuple[str, str]]


def checkout(source: Source, store: Store, progress: Progress) -> SourceTree:
    """Bring the copy of the directory source.location up to date.

    Raises UsageError where it is no kernel tree.
    """
    origin = Path(source.location).expanduser()
    if not trees.is_kernel(origin):
        raise UsageError(
            f"no kernel tree: {origin}" + ("" if origin.is_dir() else " is no directory"),
            hint="name the top directory of a Linux source tree (the one with Kconfig and MAINTAINERS)",
        )
    origin = origin.resolve()
    holder = store.workspace("tree", digest("tree", str(origin)))
    deadline = Deadline.after(COPY_SECONDS, f"copying {origin}")
    with locked(
        holder / trees.LOCK, deadline, waits=waiting(progress, "source", "uses the copy of this tree")
    ):
        names = _names(origin, deadline)
        manifest = _read_manifest(holder)
        before = trees.read_record(holder)
        new = _copy_changed(origin, names, manifest, holder, lambda done: progress(_update(origin, done)))
        record = trees.Record(_digest(new), trees.version(origin), str(origin))
        if new != manifest or record != before:
            (holder / MANIFEST).write_text(json.dumps(new), encoding="utf-8")
            trees.write_record(holder, record)
    return trees.source_tree(holder, record)


def record(origin: Path, tree: SourceTree | PatchedTree, folder: Path) -> None:
    """Write down what a user's tree was when it was copied: its commit in tree.txt, and in tree.diff what is
    not committed, with files that git does not know yet; only the digest where there is no repository.

    The repository is read only: git's index and new objects go to a scratch directory.
    """
    deadline = Deadline.after(COPY_SECONDS, f"recording the state of {origin}")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"tree: {origin}", f"version: {tree.version}", f"digest: {tree.digest}"]
    asked = {
        "commit": ("rev-parse", "HEAD"),
        "branch": ("rev-parse", "--abbrev-ref", "HEAD"),
        "describe": ("describe", "--always", "--dirty"),
    }
    for word, arguments in asked.items():
        done = git(*TRUSTING, *arguments, cwd=origin, deadline=deadline, check=False)
        if done.status == 0:
            lines.append(f"{word}: {done.output.strip()}")
    if _is_tracked(origin, deadline):
        count = _write_uncommitted(origin, folder / "tree.diff", deadline)
        lines.append(f"uncommitted: {count} files, in tree.diff" if count else "uncommitted: nothing")
    else:
        lines.append("no commit: git knows nothing of the tree, its digest is that of all its files")
    (folder / "tree.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_tracked(origin: Path, deadline: Deadline) -> bool:
    done = git(*TRUSTING, "ls-tree", "HEAD", "Makefile", cwd=origin, deadline=deadline, check=False)
    return done.status == 0 and bool(done.output)


def _write_uncommitted(origin: Path, target: Path, deadline: Deadline) -> int:
    """Write the difference between HEAD and the tree as it is; returns the number of files that differ."""
    ask = ("rev-parse", "--path-format=absolute", "--git-path", "index", "--git-path", "objects")
    index, objects = git(*TRUSTING, *ask, cwd=origin, deadline=deadline).output.splitlines()
    with tempfile.TemporaryDirectory(prefix="luh-index-") as scratch:
        if Path(index).exists():  # with the user's index, git hashes only what has changed since
            shutil.copy(index, f"{scratch}/index")
        env = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        git(*TRUSTING, "add", "--all", ".", cwd=origin, env=env, deadline=deadline)
        shown = ("--binary", "--no-ext-diff", "--no-color", f"--output={target.resolve()}")
        git(*TRUSTING, "diff", "--cached", *shown, "HEAD", "--", ".", cwd=origin, env=env, deadline=deadline)
    return sum(line.startswith(DIFF_HEAD) for line in target.read_bytes().splitlines())


def _update(origin: Path, done: float) -> Update:
    return Update("source", f"copying what changed in {origin}", done=done)


def _names(origin: Path, deadline: Deadline) -> list[str]:
    """The files that belong to a tree: what git tracks or would offer to add, else all but build products."""
    listing = git(
        *TRUSTING,
        *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=origin,
        deadline=deadline,
        check=False,
    )
    names = set(listing.output.split("\0")) if listing.status == 0 else set()
    if "Makefile" not in names:  # no repository, or one around the tree that ignores it
        return sorted(name for name in files.walk(origin) if not _is_built(name))
    return sorted(name for name in names if name and not name.endswith("/"))


def _is_built(name: str) -> bool:
    last = name.rpartition("/")[2]
    return name.startswith(BUILT_BELOW) or any(fnmatch.fnmatchcase(last, pattern) for pattern in BUILT)


def _read_manifest(holder: Path) -> Manifest:
    try:
        saved = json.loads((holder / MANIFEST).read_text(encoding="utf-8"))
        return {name: (state, content) for name, (state, content) in saved.items()}
    except (OSError, ValueError):
        return {}


def _copy_changed(
    origin: Path, names: list[str], manifest: Manifest, holder: Path, on_step: Callable[[float], None]
) -> Manifest:
    """Copy the files whose stat data are not those of the manifest, remove those that are gone."""
    target = holder / trees.TREE
    new: Manifest = {}
    for index, name in enumerate(names):
        path = f"{origin}/{name}"
        try:
            state = _state(os.lstat(path))
        except FileNotFoundError:
            continue  # tracked by git, but deleted
        known = manifest.get(name)
        if known and known[0] == state:
            new[name] = known
        else:
            trees.forget_record(holder)
            new[name] = (state, _copy(path, target / name))
        if index % files.STEP == 0:
            on_step(index / len(names))
    for name in [] if not target.exists() else manifest.keys() - new.keys():
        trees.forget_record(holder)
        files.remove(target, name)
    return new


def _state(status: os.stat_result) -> str:
    return f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _copy(path: str, place: Path) -> str:
    """Copy one file unless its content is there already; return the digest of its content."""
    if not files.same(path, str(place)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, str(place))
        except PermissionError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
    # The copy is what gets built, so it is what counts, should somebody be saving the file right now.
    status = place.lstat()
    content = str(place.readlink()).encode() if stat.S_ISLNK(status.st_mode) else place.read_bytes()
    kind = stat.S_IFMT(status.st_mode) | (status.st_mode & stat.S_IXUSR)
    return hashlib.sha256(f"{kind:o}\0".encode() + content).hexdigest()[:DIGEST_LENGTH]


def _digest(manifest: Manifest) -> str:
    return digest("tree", "".join(f"{name}\0{content}\0" for name, (_, content) in sorted(manifest.items())))
