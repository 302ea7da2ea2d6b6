# SPDX-License-Identifier: GPL-2.0-or-later
"""A store, a small tree that looks like a kernel's from outside, and what a stage says while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import command
from harness.case import Provider, Source, SourceTree, Update, silent
from harness.deadline import Deadline
from harness.kernel import source
from harness.store import Store

FAKELINUX = Path(__file__).resolve().parents[1] / "fakelinux"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """A kernel tree of the user's, in no git repository."""
    return Path(shutil.copytree(FAKELINUX, tmp_path / "linux"))


@pytest.fixture
def sh() -> Callable[[str, Path], str]:
    """Runs a shell script in a directory; returns what it prints."""

    def run(script: str, directory: Path) -> str:
        quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        name = {
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        deadline = Deadline.after(30, "a script of a test")
        return command.run(
            ["sh", "-ec", script], cwd=directory, env={**quiet, **name}, deadline=deadline
        ).output

    return run


@pytest.fixture
def checkout(linux: Path, store: Store) -> Callable[[], SourceTree]:
    """Checks the user's tree out as it is now."""
    return lambda: source.checkout((Source(Provider.TREE, str(linux)),), store, silent)


@pytest.fixture
def updates() -> list[Update]:
    """What a stage said; its append is a Progress."""
    return []
