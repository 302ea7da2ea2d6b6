# SPDX-License-Identifier: GPL-2.0-or-later
"""A series is applied as a whole or not at all; what does not apply is named to the hunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Medium, Series, SourceTree, silent
from harness.errors import PatchError, UsageError
from harness.kernel import series
from harness.store import Store

Shell = Callable[[str, Path], str]
Checkout = Callable[[], SourceTree]
EDIT = """\
sed -i 's/return 1/return 11/' kernel/fork.c; git commit -qam 'kernel: fork eleven'
sed -i 's/int names = 1/int names = 2/; s/count() + 1/count() + 2/' mm/memfd.c
printf 'int added;\\n' > mm/added.c; git rm -q COPYING; git mv virt/Kconfig virt/Kconfig.kvm; git add -A
git commit -qm 'mm: rework memfd'
git format-patch -q -o ../series --cover-letter base
"""


@pytest.fixture
def folder(linux: Path, sh: Shell) -> Path:
    """Two patches against the tree as it is checked out, and a cover letter."""
    (linux / "COPYING").write_text("GPL\n")
    sh(
        f"cp -r . ../work; cd ../work; git init -q; git add -A; git commit -qm base; git tag base\n{EDIT}",
        linux,
    )
    return linux.parent / "series"


@pytest.fixture
def patches(folder: Path) -> Series:
    return Series(Medium.FOLDER, str(folder))


def test_the_patches_are_applied_in_order(checkout: Checkout, patches: Series, store: Store) -> None:
    tree = checkout()
    patched = series.apply(tree, (patches,), store, silent)
    assert patched.subjects == ("kernel: fork eleven", "mm: rework memfd")
    assert patched.version == tree.version
    assert patched.digest != tree.digest
    assert "return 11" in (patched.path / "kernel/fork.c").read_text()
    assert "names = 2" in (patched.path / "mm/memfd.c").read_text()
    assert (patched.path / "mm/added.c").exists()
    assert (patched.path / "virt/Kconfig.kvm").exists()
    assert not (patched.path / "virt/Kconfig").exists()
    assert not (patched.path / "COPYING").exists()
    assert (patched.path / "init/main.c").stat().st_ino == (tree.path / "init/main.c").stat().st_ino
    assert not (patched.path / ".git").exists()


def test_the_source_stays_as_it_was(checkout: Checkout, patches: Series, store: Store) -> None:
    tree = checkout()
    series.apply(tree, (patches,), store, silent)
    assert "return 1;" in (tree.path / "kernel/fork.c").read_text()
    assert (tree.path / "COPYING").exists()
    assert checkout() == tree


def test_without_a_series_the_tree_is_the_source(checkout: Checkout, store: Store) -> None:
    tree = checkout()
    patched = series.apply(tree, (), store, silent)
    assert (patched.path, patched.digest, patched.subjects) == (tree.path, tree.digest, ())


def test_an_edited_patch_changes_only_the_files_it_touches(
    checkout: Checkout, patches: Series, store: Store
) -> None:
    first = series.apply(checkout(), (patches,), store, silent)
    times = {path: path.stat().st_mtime_ns for path in first.path.rglob("*.[ch]")}
    patch = next(Path(patches.location).glob("0001-*"))
    patch.write_text(patch.read_text().replace("return 11", "return 12"))
    second = series.apply(checkout(), (patches,), store, silent)
    assert second.path == first.path
    assert second.digest != first.digest
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"fork.c"}
    assert "return 12" in (second.path / "kernel/fork.c").read_text()


def test_an_edit_below_the_series_comes_through(
    linux: Path, checkout: Checkout, patches: Series, store: Store
) -> None:
    first = series.apply(checkout(), (patches,), store, silent)
    main = linux / "init/main.c"
    main.write_text(main.read_text() + "int edited;\n")
    second = series.apply(checkout(), (patches,), store, silent)
    assert second.digest != first.digest
    assert "edited" in (second.path / "init/main.c").read_text()
    assert "return 11" in (second.path / "kernel/fork.c").read_text()


def test_a_patch_that_does_not_apply_names_itself_the_file_and_the_hunk(
    linux: Path, checkout: Checkout, patches: Series, store: Store
) -> None:
    memfd = linux / "mm/memfd.c"
    memfd.write_text(memfd.read_text().replace("count() + 1", "count() + 7"))
    tree = checkout()
    with pytest.raises(PatchError) as caught:
        series.apply(tree, (patches,), store, silent)
    message = caught.value.message
    assert message.startswith("0002-mm-rework-memfd.patch does not apply: mm/memfd.c, hunk 2 of 2 (@@ -")
    assert "\n" not in message
    assert "+\treturn count() + 2;" in caught.value.detail
    assert "names" not in caught.value.detail
    assert checkout() == tree
    assert not list(store.root.glob("series/[0-9a-f]*"))


def test_a_patch_for_a_file_that_is_not_there_names_it(
    linux: Path, checkout: Checkout, patches: Series, store: Store
) -> None:
    (linux / "kernel/fork.c").unlink()
    with pytest.raises(PatchError, match=r"0001-.*kernel/fork\.c.*(does not exist|No such file)"):
        series.apply(checkout(), (patches,), store, silent)


def test_the_users_git_configuration_and_environment_do_not_matter(
    checkout: Checkout, patches: Series, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gitconfig").write_text("[commit]\n\tgpgsign = true\n[core]\n\thooksPath = /nowhere\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert len(series.apply(checkout(), (patches,), store, silent).subjects) == 2


def test_a_folder_without_patches_is_refused(checkout: Checkout, store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no patches in"):
        series.apply(checkout(), (Series(Medium.FOLDER, str(tmp_path / "empty")),), store, silent)
