# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits that may be next are built beside the one that runs, and no longer than they may be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.bisect.ahead import Ahead
from harness.bisect.history import Repository
from harness.case import KernelDefinition, Medium, Provider, Series, Source
from harness.deadline import Deadline
from harness.store import Store
from tests.bisect.conftest import History


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LUH_STORE", str(tmp_path / "store"))
    return Store.default()


def test_two_commits_are_built_with_the_first_series_that_applies(
    history: History, store: Store, tmp_path: Path
) -> None:
    history.grow(3, {})
    fragment = tmp_path / "tiny.config"
    fragment.write_text("CONFIG_EXPERT=y\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/0001-x.patch").write_text(
        "From: A <a@b>\nSubject: x\n\n--- a/none.c\n+++ b/none.c\n@@ -1 +1 @@\n-a\n+b\n"
    )
    repository = str(Repository.of(history.tree).path)

    def variants(commit: str, place: str) -> tuple[KernelDefinition, ...]:
        source = Source(Provider.GIT, repository, pin=commit, place=place)
        series: list[tuple[Series, ...]] = [(Series(Medium.FOLDER, str(tmp_path / "other")),), ()]
        return tuple(KernelDefinition("k", (source,), one, (fragment,)) for one in series)

    current, *following = history.commits[:3]
    deadline = Deadline.after(300, "two kernels")
    with Ahead(variants, tmp_path) as ahead:
        ahead.foresee(current, following)
        assert set(ahead.places) == set(following)
        assert len(set(ahead.places.values())) == 2
        while len([entry for entry in store.root.glob("kernel/*") if entry.is_dir()]) < 2:
            deadline.check()
            time.sleep(0.1)
        ahead.foresee(following[0], [])
        assert set(ahead.places) == {following[0]}
