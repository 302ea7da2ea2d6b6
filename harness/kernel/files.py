# SPDX-License-Identifier: GPL-2.0-or-later
"""Making one directory of files follow another, so that make sees exactly what changed.

Three rules: a file whose content did not change keeps its inode and its time; one that changed gets the
time of now (its origin may have been edited while an earlier version was being compiled); and no file is
ever written in place, so that a hard link never changes behind another's back.

Names are plain strings where every file is looked at: a kernel has 100,000 of them.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

STEP = 2000


def walk(root: Path) -> Iterator[str]:
    """The paths of all files and symbolic links below root, relative to it; directories are not followed."""
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(f"{root}/{below}") as entries:
            for entry in entries:
                name = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                else:
                    yield name


def follow(wanted: Mapping[str, str], target: Path, on_step: Callable[[float], None]) -> None:
    """Make target hold exactly the wanted files: relative name -> absolute path of the file to take.

    A fresh target is made of hard links where the file system can; in one that is there already, what
    changed is copied. on_step: called now and then with the share that is done.
    """
    fresh = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    for name in [] if fresh else [name for name in walk(target) if name not in wanted]:
        remove(target, name)
    made: set[str] = set()
    for index, (name, origin) in enumerate(wanted.items()):
        place = f"{target}/{name}"
        if fresh or not same(origin, place):
            if (folder := place.rpartition("/")[0]) not in made:
                Path(folder).mkdir(parents=True, exist_ok=True)
                made.add(folder)
            link(origin, place) if fresh else replace(origin, place)
        if index % STEP == 0:
            on_step(index / len(wanted))


def same(origin: str, place: str) -> bool:
    """Whether two paths are one file, or hold the same content with the same right to be executed."""
    try:
        left, right = os.lstat(origin), os.lstat(place)
    except FileNotFoundError:
        return False
    if (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino):
        return True
    if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode) or left.st_size != right.st_size:
        return False
    if stat.S_ISLNK(left.st_mode):
        return Path(origin).readlink() == Path(place).readlink()
    executable = (left.st_mode ^ right.st_mode) & stat.S_IXUSR == 0
    return executable and filecmp.cmp(origin, place, shallow=False)


def link(origin: str, place: str) -> None:
    """Hard link, or copy where that is not possible (another file system, too many links)."""
    try:
        os.link(origin, place, follow_symlinks=False)
    except OSError:
        replace(origin, place)


def replace(origin: str, place: str) -> None:
    """Put a copy of a file, or of a symbolic link, in the place of another; its time is now."""
    draft = Path(f"{place}.luh-new")
    draft.unlink(missing_ok=True)
    shutil.copy(origin, draft, follow_symlinks=False)
    draft.replace(place)


def remove(root: Path, name: str) -> None:
    """Remove a file, and the directories above it that are empty then."""
    (root / name).unlink()
    for parent in (root / name).parents:
        if parent == root:
            break
        try:
            parent.rmdir()
        except OSError:
            break
