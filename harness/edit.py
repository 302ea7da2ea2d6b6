# SPDX-License-Identifier: GPL-2.0-or-later
"""From the edit of one .c file in a user's tree to the verdict of a scenario: `luh bench edit`.

The tree is a directory like any user's, with our series on top (`luh run --tree DIR --series ours`), and each
edit changes the code of a file that one object is made of.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

from harness.bench import BUILD_SECONDS, Figure, Measured, luh, machine_of, repeat, run
from harness.case import PatchedTree, Progress
from harness.store import Store, digest

KIND = "edited"
FILE = "mm/memfd_luo.c"
PHASES = ("source", "series", "config", "build", "image", "scenarios")


def measure(tree: PatchedTree, store: Store, count: int, progress: Progress) -> Measured:
    """Edit and run, `count` times, after a first run that builds what it lacks. tree: what the user's is of.

    Raises InfraError where a run does not pass.
    """
    own = store.workspace(KIND, digest(tree.digest)) / "linux"
    if not own.exists():
        draft = own.with_name("draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(tree.path, draft, symlinks=True, copy_function=os.link)
        draft.rename(own)
    # Of an inode of its own: the other files are links of the store's.
    original = (tree.path / FILE).read_text(encoding="utf-8")
    words = ("--tree", str(own), "--series", "ours")
    numbers = itertools.count()

    def edited() -> dict[str, Any]:
        code = f'static const char edited[] __used = "{os.getpid()} {next(numbers)}";'
        _put(own / FILE, f"{original}\n{code}\n")
        return run(*words)

    repeat("first build", 1, lambda: luh("build", *words, seconds=BUILD_SECONDS), progress)
    first, *_ = results = repeat("edits", count, edited, progress)
    figures = [
        Figure.of("edit", f"edit of {FILE} to verdict, whole command", (one["wall"] for one in results))
    ]
    figures += [Figure.of(name, f"  {name}", (_phase(one, name) for one in results)) for name in PHASES]
    return Measured(f"{os.cpu_count()} CPUs, {machine_of(first)}", tuple(figures))


def _put(file: Path, text: str) -> None:
    draft = file.with_suffix(".edited")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def _phase(result: dict[str, Any], name: str) -> float:
    return sum(float(phase["seconds"]) for phase in result["phases"] if phase["name"] == name)
