# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own tests are built with the tree's Makefiles, once, and without a trace in the tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import command
from harness.case import Kernel, PatchedTree, Program, Selftest, SourceTree, silent
from harness.deadline import Deadline
from harness.kernel import selftests, series
from harness.store import Store

Build = Callable[..., tuple[Program, ...]]


@pytest.fixture
def tree(checkout: Callable[[], SourceTree], store: Store) -> Callable[[], PatchedTree]:
    return lambda: series.apply(checkout(), (), store, silent)


@pytest.fixture
def build(tree: Callable[[], PatchedTree], store: Store, tmp_path: Path) -> Build:
    """Builds tests of the user's tree as it is now, for a kernel with that one option."""
    config = tmp_path / "config"
    config.write_text("CONFIG_EXPERT=y\n")
    kernel = Kernel("tiny", "digest", "7.3.1", tmp_path, tmp_path, config, ())

    def run(*names: str, script: str = "") -> tuple[Program, ...]:
        tests = [Selftest(name, script=script) for name in names]
        return selftests.build(tree(), tests, kernel, store, silent)

    return run


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def status(program: Program) -> int:
    assert program.path
    return command.run([program.path], deadline=Deadline.after(10, "a test"), check=False).status


def test_a_program_is_built_static_with_the_trees_headers(build: Build) -> None:
    passes, fails = build("tiny/passes", "tiny/fails")
    assert (status(passes), status(fails)) == (0, 1)
    assert passes.path
    assert b"ld-linux" not in passes.path.read_bytes().partition(b".text")[0][:4096]


def test_a_program_knows_its_time_and_what_the_kernel_lacks(build: Build) -> None:
    (program,) = build("tiny/passes")
    assert program.seconds == 120.0
    assert program.options == ("CONFIG_FORK=y",)


def test_neither_the_users_tree_nor_the_stores_is_written_to(
    build: Build, tree: Callable[[], PatchedTree], linux: Path
) -> None:
    before, copied = files(linux), files(tree().path)
    build("tiny/passes", "tiny/broken")
    assert files(linux) == before
    assert files(tree().path) == copied


def test_what_is_built_is_found_again_and_what_changed_is_built_anew(build: Build, linux: Path) -> None:
    (first,) = build("tiny/passes")
    assert first.path
    stamp = first.path.stat().st_mtime_ns
    (again,) = build("tiny/passes")
    assert again.path == first.path
    assert again.path and again.path.stat().st_mtime_ns == stamp
    source = linux / "tools/testing/selftests/tiny/passes.c"
    source.write_text(source.read_text().replace("return 0", "return 3"))
    (changed,) = build("tiny/passes")
    assert changed.digest != first.digest
    assert status(changed) == 3


def test_one_that_does_not_compile_does_not_take_others_with_it(build: Build) -> None:
    broken, passes, unfinished = build("tiny/broken", "tiny/passes", "tiny/unfinished")
    assert passes.path
    assert broken.path is None
    assert broken.problem.startswith("it does not compile: broken.c:4: ")
    assert "undeclared" in broken.problem
    assert unfinished.problem.startswith("it does not link: ")
    assert "nobody_wrote_this" in unfinished.problem


def test_a_tree_without_the_test_says_so(build: Build) -> None:
    (program,) = build("tiny/luo_mine")
    assert program.missing
    assert program.problem == "the tree has no tools/testing/selftests/tiny/luo_mine.c"


def test_a_source_that_the_makefile_does_not_name_is_told_apart(build: Build, linux: Path) -> None:
    (linux / "tools/testing/selftests/tiny/mine.c").write_text("int main(void) { return 0; }\n")
    (program,) = build("tiny/mine")
    assert program.problem == "the Makefile of its folder does not build it"


def test_a_test_inside_the_kernel_has_no_program(build: Build) -> None:
    (program,) = build("tiny/vmtest", script="tiny/Makefile")
    assert program.path is None
    assert program.problem == ""
    assert os.sep in program.test.source
