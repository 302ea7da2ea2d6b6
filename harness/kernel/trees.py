# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel trees in the store: where one lies, what is recorded of it, and who may change it.

A tree is the directory `linux` of a holder, beside its record. A holder is either an entry of the store,
which never changes, or a workspace with a lock that follows something that changes (a user's directory,
a branch, a series being written), always at the same path, so that make builds only what changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import command
from harness.case import PatchedTree, SourceTree
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.store import locked

TREE = "linux"
RECORD = "tree.json"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a holder's tree; it is written last, so a tree without one is unfinished."""

    digest: str
    version: str
    origin: str


def read_record(holder: Path) -> Record | None:
    try:
        return Record(**json.loads((holder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(holder: Path, record: Record) -> None:
    draft = holder / f"{RECORD}.new"
    draft.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
    draft.rename(holder / RECORD)


def forget_record(holder: Path) -> None:
    """Say that the holder's tree is about to change."""
    (holder / RECORD).unlink(missing_ok=True)


def source_tree(holder: Path, record: Record) -> SourceTree:
    return SourceTree(holder / TREE, record.digest, record.version, record.origin)


@contextmanager
def still(tree: SourceTree | PatchedTree, deadline: Deadline) -> Iterator[None]:
    """Keep other runs from changing a tree for the length of the block; they may read it too.

    Raises InfraError where one already has, since the tree was handed out.
    """
    holder = tree.path.parent
    lock = holder / LOCK
    with locked(lock, deadline, shared=True) if lock.exists() else nullcontext():
        record = read_record(holder)
        if record is None or record.digest != tree.digest:
            raise InfraError(
                "another run has changed the kernel tree since this one read it", hint="run it again"
            )
        yield


def unpack(tarball: Path, tree: Path, deadline: Deadline) -> None:
    """Extract a tarball's one directory as `tree`, which is there and empty. Raises InfraError."""
    command.run(
        ["tar", "--extract", "--strip-components=1", "--no-same-owner", "-f", tarball, "-C", tree],
        deadline=deadline,
    )


def is_kernel(path: Path) -> bool:
    """Whether the directory looks like a kernel tree (Makefile with a version, Kconfig, merge_config.sh)."""
    needed = (path / "Kconfig", path / "scripts/kconfig/merge_config.sh")
    return version(path) != "" and all(file.is_file() for file in needed)


def version(path: Path) -> str:
    """The tree's version as its Makefile has it ("7.3.4"), or "" where that says none."""
    try:
        head = (path / "Makefile").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return ""
    numbers: dict[str, str] = {
        key: value.strip()
        for key, value in re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=(.*)$", head, re.M)
    }
    if not numbers.get("VERSION") or not numbers.get("PATCHLEVEL"):
        return ""
    dotted = ".".join(numbers[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if numbers.get(key))
    return dotted + numbers.get("EXTRAVERSION", "")
