# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace's functions with offsets become files and lines, of kernels without debug information too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import Kernel
from harness.deadline import Deadline
from harness.kernel import trees
from harness.kernel.lines import Reference, at_address, locate
from harness.store import Store
from tests.kernel import built
from tests.kernel.built import TRAP, address, place


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return built.build(tmp_path / "kernel")


def found(kernel: Kernel, store: Store, *wanted: Reference) -> dict[Reference, tuple[str, ...]]:
    return locate(kernel, wanted, store, Deadline.after(60, "a test"))


def test_what_is_inlined_is_told_before_where_it_is(kernel: Kernel, store: Store) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    assert found(kernel, store, trap) == {trap: TRAP}


def test_a_kernel_with_debug_information_is_asked_itself(tmp_path: Path, store: Store) -> None:
    kernel = built.build(tmp_path / "kernel", debug=True)
    (tmp_path / "kernel/output").rename(tmp_path / "gone")
    trap = place(kernel, "gmem_fault", "ud2")
    assert found(kernel, store, trap) == {trap: TRAP}
    assert not (store.root / "lines").exists()


def test_functions_of_the_same_name_are_told_apart_by_their_size(kernel: Kernel, store: Store) -> None:
    sizes = built.sh("nm -S vmlinux | grep same_name", kernel.vmlinux.parent).split()
    large, small = sorted((int(sizes[1], 16), int(sizes[5], 16)), reverse=True)
    wanted = Reference("same_name", 0, large), Reference("same_name", 0, small)
    assert large >= small + 16
    files = [lines[0].partition(":")[0] for lines in found(kernel, store, *wanted).values()]
    assert files == ["mm/gmem.c", "mm/other.c"]


def test_a_function_whose_size_is_another_one_is_left_out(kernel: Kernel, store: Store) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    assert found(kernel, store, replace(trap, size=trap.size + 64)) == {}
    assert found(kernel, store, Reference("no_such_function", 0, 16)) == {}


def test_an_object_is_compiled_once(kernel: Kernel, store: Store, tmp_path: Path) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    found(kernel, store, trap)
    saved = tmp_path / "kernel/output/mm/.gmem.o.cmd"
    saved.write_text("savedcmd_mm/gmem.o := false -o mm/gmem.o\n")
    assert found(kernel, store, trap) == {trap: TRAP}


def test_lines_of_a_tree_that_has_moved_on_are_nobodys(kernel: Kernel, store: Store, tmp_path: Path) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    config = tmp_path / "kernel/output/.config"
    text = config.read_text()
    config.write_text(text + "CONFIG_KASAN=y\n")
    assert found(kernel, store, trap) == {}
    config.write_text(text)
    trees.write_record(tmp_path / "kernel/tree", trees.Record("another", "7.3.4", "a test"))
    assert found(kernel, store, trap) == {}


@pytest.mark.parametrize(
    "lost", ["output", "tree", "entry/meta.json", "output/vmlinux.a", "output/mm/.gmem.o.cmd"]
)
def test_what_is_lost_costs_lines_and_nothing_else(
    kernel: Kernel, store: Store, tmp_path: Path, lost: str
) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    (tmp_path / "kernel" / lost).rename(tmp_path / "lost")
    assert found(kernel, store, trap) == {}


def test_an_address_is_in_the_function_that_begins_before_it(kernel: Kernel) -> None:
    reference = at_address(kernel, address(kernel, "gmem_fault") + 5)
    assert reference
    assert (reference.function, reference.offset) == ("gmem_fault", 5)
    assert at_address(kernel, 0xFFFF) is None
    assert at_address(kernel, 1 << 40) is None
