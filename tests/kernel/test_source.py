# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources: a user's tree is followed and never written to; a repository's and a tarball's are kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Provider, Source, SourceTree, Update, silent
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import mirror, source, trees
from harness.store import Store

Shell = Callable[[str, Path], str]
Checkout = Callable[[], SourceTree]


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a directory with its content and time."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


# ---- a directory of the user's ----


def test_a_tree_is_copied_and_never_written_to(linux: Path, checkout: Checkout) -> None:
    before = contents(linux)
    tree = checkout()
    assert contents(linux) == before
    assert tree.version == "7.3.1"
    assert {name: content for name, (content, _) in contents(tree.path).items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_an_edit_changes_the_digest_and_only_that_file(linux: Path, checkout: Checkout) -> None:
    first = checkout()
    before = contents(first.path)
    (linux / "kernel/fork.c").write_text("int fork_me(void) { return 2; }\n")
    second = checkout()
    assert second.path == first.path
    assert second.digest != first.digest
    after = contents(second.path)
    assert {name for name in after if after[name] != before[name]} == {"kernel/fork.c"}


def test_an_edited_file_is_newer_than_what_was_built_before_the_edit_was_seen(
    linux: Path, checkout: Checkout
) -> None:
    """Else make would take an object that was compiled while the edit was made for up to date."""
    file = checkout().path / "kernel/fork.c"
    seen = file.stat().st_mtime_ns
    (linux / "kernel/fork.c").write_text("int fork_me(void) { return 2; }\n")
    os.utime(linux / "kernel/fork.c", (0, 0))
    checkout()
    assert file.stat().st_mtime_ns > seen


def test_a_touch_without_an_edit_changes_nothing(linux: Path, checkout: Checkout) -> None:
    first = checkout()
    before = contents(first.path)
    (linux / "kernel/fork.c").touch()
    assert checkout() == first
    assert contents(first.path) == before


def test_new_and_removed_files_and_the_right_to_execute_count(linux: Path, checkout: Checkout) -> None:
    digests = [checkout().digest]
    (linux / "kernel/new.c").touch()
    digests.append(checkout().digest)
    (linux / "kernel/new.c").chmod(0o755)
    digests.append(checkout().digest)
    (linux / "kernel/new.c").unlink()
    tree = checkout()
    assert not (tree.path / "kernel/new.c").exists()
    assert len(set(digests)) == 3
    assert tree.digest == digests[0]


def test_a_repository_gives_what_git_tracks_and_what_is_new(
    linux: Path, checkout: Checkout, sh: Shell
) -> None:
    plain = checkout().digest
    sh(
        "git init -q; printf '*.o\n' > .gitignore; git add -A; git commit -qm base; rm .git/index.lock || :",
        linux,
    )
    (linux / "init/main.o").touch()
    (linux / "init/new.c").touch()
    before = (linux / ".git/index").stat().st_mtime_ns
    tree = checkout()
    assert tree.digest != plain
    assert (tree.path / "init/new.c").exists()
    assert not (tree.path / "init/main.o").exists()
    assert not (tree.path / ".git").exists()
    assert (linux / ".git/index").stat().st_mtime_ns == before


def test_a_tree_that_was_built_in_gives_its_sources_only(linux: Path, checkout: Checkout) -> None:
    for product in ("init/main.o", ".config", "include/generated/bounds.h", "init/.main.o.cmd"):
        (linux / product).parent.mkdir(exist_ok=True)
        (linux / product).touch()
    assert sorted(contents(checkout().path)) == sorted(contents(Path(__file__).parents[1] / "fakelinux"))


def test_sources_that_are_named_as_products_are_sources(linux: Path, checkout: Checkout) -> None:
    """Without vmlinux.lds.S no kernel can be built; a vmlinux.lds beside it would be taken for fresh."""
    for name in ("kernel/vmlinux.lds.S", "include/vmlinux.lds.h", "kernel/vmlinux.lds", "vmlinux"):
        (linux / name).write_text("x")
    tree = checkout()
    found = [str(path.relative_to(tree.path)) for path in sorted(tree.path.rglob("vmlinux*"))]
    assert found == ["include/vmlinux.lds.h", "kernel/vmlinux.lds.S"]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_directory_that_is_no_kernel_tree(tmp_path: Path, store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="no kernel tree") as caught:
        source.checkout((Source(Provider.TREE, str(tmp_path / name)),), store, silent)
    assert caught.value.hint


def test_a_tree_that_another_run_has_changed_since_is_noticed(linux: Path, checkout: Checkout) -> None:
    tree = checkout()
    (linux / "kernel/fork.c").write_text("int fork_me(void) { return 2; }\n")
    checkout()
    with pytest.raises(InfraError, match="another run"), trees.still(tree, Deadline.after(5, "a test")):
        pass


def test_a_full_disk_is_an_error_of_the_machine(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(origin: str, place: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", place)

    monkeypatch.setattr("harness.kernel.files.replace", full)
    with pytest.raises(InfraError, match="No space left") as caught:
        checkout()
    assert "LUH_STORE" in caught.value.hint


# ---- a git repository ----


def test_a_branch_is_followed_and_a_commit_is_not_asked_for_again(
    linux: Path, store: Store, sh: Shell
) -> None:
    commit = sh("git init -q -b main; git add -A; git commit -qm base; git rev-parse HEAD", linux).strip()
    branch = Source(Provider.GIT, str(linux), pin="main")
    pinned = Source(Provider.GIT, str(linux), pin=commit)
    first = source.checkout((branch,), store, silent)
    assert source.checkout((pinned,), store, silent).digest == first.digest
    before = contents(first.path)

    sh("echo 'int fork_me(void) { return 2; }' > kernel/fork.c; git commit -qam change", linux)
    second = source.checkout((branch,), store, silent)
    after = contents(second.path)
    assert second.path == first.path
    assert second.digest != first.digest
    assert {name for name in after if after[name] != before[name]} == {"kernel/fork.c"}

    linux.rename(linux.with_name("gone"))
    assert source.checkout((pinned,), store, silent).digest == first.digest
    assert source.checkout((branch,), store, silent).digest == second.digest


def test_an_unknown_ref_is_named(linux: Path, store: Store, sh: Shell) -> None:
    sh("git init -q -b main; git add -A; git commit -qm base", linux)
    with pytest.raises(InfraError, match="cannot fetch v9"):
        source.checkout((Source(Provider.GIT, str(linux), pin="v9"),), store, silent)


def test_commits_of_a_repository_on_this_disk_follow_each_other_in_one_place(
    linux: Path, store: Store, sh: Shell
) -> None:
    """As a bisection wants them: one tree, in which only what differs changes, and nothing is fetched."""
    edit = "echo 'int fork_me(void) { return 2; }' > kernel/fork.c"
    commits = sh(
        f"git init -q; git add -A; git commit -qm base; {edit}; git commit -qam two; git rev-list HEAD", linux
    ).split()
    repository = str(linux / ".git")
    new, old = (Source(Provider.GIT, repository, pin=commit, place="bisection") for commit in commits)
    first = source.checkout((old,), store, silent)
    before = contents(first.path)
    second = source.checkout((new,), store, silent)
    after = contents(second.path)
    assert second.path == first.path
    assert second.digest != first.digest
    assert {name for name in after if after[name] != before[name]} == {"kernel/fork.c"}
    assert source.checkout((old,), store, silent) == first
    assert not (store.root / "git").exists()
    with pytest.raises(UsageError, match="no commit v9"):
        source.checkout((Source(Provider.GIT, repository, pin="v9"),), store, silent)


# ---- several ----


def test_the_next_source_is_taken_where_one_fails_and_goes_first_from_then_on(
    linux: Path, tmp_path: Path, store: Store, updates: list[Update]
) -> None:
    broken = Source(Provider.GIT, str(tmp_path / "nowhere"), pin="main")
    works = Source(Provider.TREE, str(linux))
    assert source.checkout((broken, works), store, updates.append).version == "7.3.1"
    assert "cannot fetch main" in "".join(update.text for update in updates)
    updates.clear()
    source.checkout((broken, works), store, updates.append)
    assert "cannot fetch main" not in "".join(update.text for update in updates)


def test_all_failures_are_listed_where_no_source_works(tmp_path: Path, store: Store) -> None:
    sources = tuple(Source(Provider.GIT, str(tmp_path / name), pin="main") for name in ("one", "two"))
    with pytest.raises(InfraError, match="2 places tried") as caught:
        source.checkout(sources, store, silent)
    assert f"{tmp_path}/one" in caught.value.detail
    assert f"{tmp_path}/two" in caught.value.detail


def test_the_state_of_a_users_tree_is_recorded_without_writing_to_it(
    linux: Path, checkout: Checkout, sh: Shell, tmp_path: Path
) -> None:
    (linux / ".gitignore").write_text("*.o\n")
    sh("git init -q; git add -A; git commit -qm base", linux)
    (linux / "kernel/fork.c").write_text("int edited; /* \xe9 */\n", encoding="latin-1")
    (linux / "mm/new.c").write_text("int fresh;\n")
    (linux / "mm/ignored.o").write_text("no")
    before = sh("find . -type f | sort | xargs sha256sum; git count-objects", linux)
    mirror.record(linux, checkout(), tmp_path / "state")
    assert sh("find . -type f | sort | xargs sha256sum; git count-objects", linux) == before
    told = (tmp_path / "state/tree.txt").read_text()
    assert f"commit: {sh('git rev-parse HEAD', linux).strip()}\n" in told
    assert "uncommitted: 2 files, in tree.diff" in told
    sh(f"git clone -q {linux} again; git -C again apply {tmp_path}/state/tree.diff", tmp_path)
    for name in ("kernel/fork.c", "mm/new.c"):
        assert (tmp_path / "again" / name).read_bytes() == (linux / name).read_bytes()
    assert not (tmp_path / "again/mm/ignored.o").exists()


def test_a_tree_that_git_does_not_know_is_recorded_by_its_digest(
    linux: Path, checkout: Checkout, tmp_path: Path
) -> None:
    tree = checkout()
    mirror.record(linux, tree, tmp_path / "state")
    told = (tmp_path / "state/tree.txt").read_text()
    assert f"digest: {tree.digest}\n" in told
    assert "no commit" in told
    assert not (tmp_path / "state/tree.diff").exists()
