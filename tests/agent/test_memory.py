# SPDX-License-Identifier: GPL-2.0-or-later
"""Filling and checking memory: each kind of damage is seen and named, and no touch can end the agent.

By the machine code that images have, and by the Python that an agent does with that runs from its sources.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.agent import bulk, files, memory
from harness.agent.files import File
from harness.agent.pattern import PAGE, page
from harness.case import MiB
from harness.image.build import LIBRARY, compile_library
from tests.agent.expected import pages

PAGES = 300
SEED = 7


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / LIBRARY
    compile_library(path)
    return path


@pytest.fixture(autouse=True, params=["machine code", "Python"])
def way(request: pytest.FixtureRequest, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = library if request.param == "machine code" else library.with_name("nothing")
    monkeypatch.setattr(bulk, "_library", bulk.load(str(place)))


@pytest.fixture
def filled() -> Iterator[File]:
    """300 pages, more than two chunks, that hold the pattern."""
    file = files.memfd_create(PAGES * PAGE)
    memory.fill(file, 0, PAGES * PAGE, SEED)
    yield file
    files.close(file)


def check(file: File, offset: int = 0, length: int = PAGES * PAGE, seed: int = SEED) -> dict[str, Any]:
    return memory.verify(file, offset, length, seed, candidates=[3])


def test_what_was_filled_verifies(filled: File) -> None:
    assert check(filled) == {"verified": PAGES * PAGE, "pages_differing": 0, "differences": []}
    assert files.read(filled, PAGE, 200 * PAGE) == page(SEED, 200)


def test_every_byte_is_the_pattern_s(filled: File) -> None:
    assert files.read(filled, PAGES * PAGE, 0) == pages(SEED, 0, PAGES)


def test_a_part_of_the_memory_can_be_filled_and_checked() -> None:
    file = files.memfd_create(PAGES * PAGE)
    memory.fill(file, 5 * PAGE, 2 * PAGE, SEED)
    assert check(file, 5 * PAGE, 2 * PAGE)["pages_differing"] == 0
    assert memory.verify_zero(file, 0, 5 * PAGE)["pages_differing"] == 0
    assert memory.verify_zero(file, 0, PAGES * PAGE)["pages_differing"] == 2


def test_a_tail_that_is_no_whole_page_is_checked_too() -> None:
    file = files.memfd_create(PAGE + 100)
    memory.fill(file, 0, PAGE + 100, SEED)
    assert check(file, 0, PAGE + 100)["pages_differing"] == 0
    memory.flip(file, PAGE + 99)
    assert check(file, 0, PAGE + 100)["differences"][0]["page"] == 1


def swap(file: File) -> None:
    memory.swap_pages(file, 9, 200)


def drop(file: File) -> None:
    memory.drop_page(file, 9)


def stale(file: File) -> None:
    memory.fill(file, 9 * PAGE, PAGE, 3)


def shift(file: File) -> None:
    memory.write(file, 9 * PAGE, memory.read(file, 9 * PAGE - 16, PAGE))


def cut(file: File) -> None:
    memory.write(file, 9 * PAGE + 40, bytes(PAGE - 40))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (swap, {9: "holds page 200's content", 200: "holds page 9's content"}),
        (lambda file: memory.flip(file, 9 * PAGE + 5, 0x10), {9: "one bit flipped: bit 4 of byte 5"}),
        (drop, {9: "all zeroes"}),
        (stale, {9: "holds seed 3's content for this page"}),
        (shift, {9: "shifted by 16 bytes"}),
        (cut, {9: "zeroes from byte 40 on"}),
    ],
)
def test_damage_is_named_with_its_page(
    filled: File, damage: Callable[[File], None], expected: dict[int, str]
) -> None:
    damage(filled)
    report = check(filled)
    assert {one["page"]: one["diagnosis"] for one in report["differences"]} == expected
    assert report["pages_differing"] == len(expected)


def test_a_difference_tells_where_and_what(filled: File) -> None:
    memory.write(filled, 9 * PAGE + 5, b"\0\1\2")
    (difference,) = check(filled)["differences"]
    assert difference["offset"] == 9 * PAGE + 5
    assert difference["expected"] == page(SEED, 9)[5:21].hex()
    assert difference["found"].startswith("000102")


def test_many_differences_are_counted_and_the_first_shown(filled: File) -> None:
    report = check(filled, seed=SEED + 1)
    assert report["pages_differing"] == PAGES
    assert len(report["differences"]) == memory.DIFFERENCES_SHOWN


def test_a_page_that_cannot_be_touched_is_an_error_and_not_the_end(filled: File) -> None:
    memory.touch(filled, 0, PAGES * PAGE, store=True)
    files.truncate(filled, 200 * PAGE)  # SIGBUS from here on, for a bare load
    for act in (
        lambda: memory.touch(filled, 250 * PAGE, 1),
        lambda: memory.fill(filled, 0, PAGES * PAGE, SEED),
        lambda: check(filled),
        lambda: memory.read(filled, 199 * PAGE, 2 * PAGE),
    ):
        with pytest.raises(OSError, match=r"page (200|250) cannot be touched") as caught:
            act()
        assert caught.value.errno == errno.EFAULT
    assert check(filled, 0, 200 * PAGE)["pages_differing"] == 0


def test_beyond_the_memory_is_an_error(filled: File) -> None:
    for offset, length in ((PAGES * PAGE, 1), (-PAGE, PAGE), (0, PAGES * PAGE + 1)):
        with pytest.raises(OSError, match="beyond") as caught:
            memory.read(filled, offset, length)
        assert caught.value.errno == errno.ERANGE


def test_holes_are_found_without_filling_them() -> None:
    file = files.memfd_create(64 * PAGE)
    files.allocate(file, 3 * PAGE, 2 * PAGE)
    memory.touch(file, 10 * PAGE, 1)
    try:
        runs = memory.allocated(file, 0, 64 * PAGE)
    except OSError as error:
        assert error.errno == errno.ENOSYS
        pytest.skip("this kernel has no cachestat(2)")
    assert runs == [[3, 2], [10, 1]]
    assert memory.allocated(file, 0, 64 * PAGE) == runs


def test_the_digest_is_that_of_the_content(filled: File) -> None:
    before = memory.digest(filled, 0, PAGES * PAGE)
    memory.flip(filled, 123)
    assert memory.digest(filled, 0, PAGES * PAGE) != before
    memory.flip(filled, 123)
    assert memory.digest(filled, 0, PAGES * PAGE) == before


def test_a_closed_file_gives_ebadf_and_its_mapping_can_stay(filled: File) -> None:
    files.close(filled, unmap=False)
    assert check(filled)["pages_differing"] == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.size(filled)
    filled.fd = files.memfd_create(0).fd  # for the fixture to close


def test_16_mib_take_well_under_a_second() -> None:
    file = files.memfd_create(16 * MiB)
    started = time.process_time()
    memory.fill(file, 0, 16 * MiB, SEED)
    assert check(file, 0, 16 * MiB)["pages_differing"] == 0
    assert time.process_time() - started < 2.0  # 0.06 s, of its own
