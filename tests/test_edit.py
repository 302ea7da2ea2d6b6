# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits that are measured are a user's: of a tree of its own, each of them new, and of one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import edit
from harness.case import PatchedTree, silent
from harness.store import Store

PHASES = [{"name": name, "seconds": number} for number, name in enumerate(edit.PHASES)]


@pytest.fixture
def tree(tmp_path: Path) -> PatchedTree:
    file = tmp_path / "linux" / edit.FILE
    file.parent.mkdir(parents=True)
    file.write_text("int luo;\n")
    (tmp_path / "linux" / "Makefile").write_text("all:\n")
    return PatchedTree(tmp_path / "linux", "digest", "7.3.4", ())


def test_each_run_sees_an_edit_and_the_tree_it_is_of_stays(
    tree: PatchedTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(*words: str) -> dict[str, Any]:
        assert words[::2] == ("--tree", "--series")
        seen.append((Path(words[1]) / edit.FILE).read_text())
        assert (Path(words[1]) / "Makefile").stat().st_ino == (tree.path / "Makefile").stat().st_ino
        kernel = {"release": "7.3.4"}
        return {"wall": 10.0 * len(seen), "phases": PHASES, "kernel": kernel, "accelerator": {"name": "tcg"}}

    def luh(*words: str, seconds: float) -> None:
        assert words[:2] == ("build", "--tree")

    monkeypatch.setattr(edit, "run", run)
    monkeypatch.setattr(edit, "luh", luh)
    whole, *phases = edit.measure(tree, Store(tmp_path / "store"), 2, silent).figures
    assert len(set(seen)) == 2
    assert all(text.startswith("int luo;\n") for text in seen)
    assert (tree.path / edit.FILE).read_text() == "int luo;\n"
    assert whole.seconds == (10.0, 20.0)  # the first build is none of them
    assert [figure.median for figure in phases] == [0, 1, 2, 3, 4, 5]
