# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of programs beside the root image: an erofs of files that the store has already."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.case import Disk
from harness.deadline import Deadline
from harness.image.build import pack
from harness.image.compiler import SECONDS
from harness.store import Store, digest


def build(name: str, programs: Mapping[str, Path], store: Store) -> Disk:
    """The disk that has each program at its path; a program is known by its path in the store."""
    key = digest(name, *(f"{place}={path}" for place, path in sorted(programs.items())))

    def make(draft: Path) -> None:
        root = draft / "root"
        for place, path in programs.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, root / place)
            (root / place).chmod(0o755)
        pack(root, draft / "disk.erofs")
        shutil.rmtree(root)

    entry = store.produce("disks", key, make, deadline=Deadline.after(SECONDS, f"making the disk {name}"))
    return Disk(name, entry / "disk.erofs")
