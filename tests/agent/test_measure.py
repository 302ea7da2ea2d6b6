# SPDX-License-Identifier: GPL-2.0-or-later
"""What costs and faults are measured with, as far as any kernel goes along with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.agent import faults, files, leaks, measure
from harness.agent.pattern import PAGE

SIZE = 3000 * PAGE


@pytest.fixture
def memfd() -> Iterator[files.File]:
    file = files.memfd_create(SIZE)
    yield file
    files.close(file)


def blocks(file: files.File) -> int:
    """How many pages the file has."""
    return os.fstat(file.fd).st_blocks * 512 // PAGE


def test_range_is_a_single_element(memfd: files.File) -> None:
    assert measure.populate(memfd, 100, 2000) > 0
    assert blocks(memfd) == 2000
    assert os.lseek(memfd.fd, 0, os.SEEK_DATA) == 100 * PAGE


def test_every_second_page(memfd: files.File) -> None:
    measure.populate(memfd, 0, 1500, stride=2)
    assert blocks(memfd) == 1500
    assert os.lseek(memfd.fd, 0, os.SEEK_HOLE) == PAGE
    assert os.lseek(memfd.fd, 2997 * PAGE, os.SEEK_DATA) == 2998 * PAGE


def test_elements_stay_below_what_a_call_takes() -> None:
    sparse = files.memfd_create(6 << 30)
    first, *_, last = measure._vectors(sparse.mapping.address, 0, (5 << 30) // PAGE + 1, 1)
    files.close(sparse)
    assert len(first) == len(last) == 16
    assert int.from_bytes(first[8:], "little") == 1 << 30
    assert int.from_bytes(last[8:], "little") == PAGE


def test_closing_is_timed(memfd: files.File) -> None:
    spare = files.dup(memfd)
    assert 0 <= measure.close(spare) < 10
    assert spare.fd == -1


@pytest.mark.skipif(Path(faults.NTH).exists(), reason="this kernel has fault injection")
def test_kernel_without_fault_injection_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        faults.prepare()


@pytest.mark.skipif(Path(leaks.FILE).exists(), reason="this kernel has kmemleak")
def test_kernel_without_kmemleak_says_so() -> None:
    assert not leaks.supported()


def test_what_every_boot_leaks_is_left_out_of_the_report() -> None:
    known = "unreferenced object 0x1 (size 8):\n  backtrace:\n    ramfs_init_fs_context+0x1a/0x40\n"
    ours = "unreferenced object 0x2 (size 333):\n  backtrace:\n    kvm_gmem_preserve+0x1/0x2\n"
    assert leaks.new(known + ours + known) == ours
    assert leaks.new(known) == ""
