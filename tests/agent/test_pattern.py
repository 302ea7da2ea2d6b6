# SPDX-License-Identifier: GPL-2.0-or-later
"""Every page has content of its own, wrong content is named for what it is, and the guest's code agrees."""

from __future__ import annotations

import ctypes
import mmap
import platform
import random
from pathlib import Path

import pytest

from harness import command
from harness.agent import pattern
from harness.agent.pattern import PAGE, diagnose
from harness.deadline import Deadline
from tests.agent.expected import pages

PAYLOAD = Path(__file__).parents[2] / "guest-images" / "l2" / "pattern.S"
SEED, INDEX = 7, 1000


def test_a_page_is_defined_word_by_word() -> None:
    words = [int.from_bytes(pattern.page(SEED, INDEX)[at : at + 8], "little") for at in range(0, PAGE, 8)]
    own = pattern.mix(SEED, INDEX)
    assert words == [k * pattern.WORD_STEP % 2**64 ^ own for k in range(512)]


def test_no_two_pages_or_seeds_share_content() -> None:
    contents = {pattern.page(seed, index) for seed in range(20) for index in range(50)}
    assert len(contents) == 20 * 50
    words = {pattern.page(1, 0)[at : at + 8] for at in range(0, PAGE, 8)}
    assert len(words) == 512


def test_the_page_number_can_be_computed_from_the_content() -> None:
    chance = random.Random(1)
    for _ in range(100):
        seed, index = chance.randrange(1 << 32), chance.randrange(1 << 40)
        total = pattern.unmix(pattern.mix(seed, index))
        assert total == (seed * pattern.SEED_FACTOR + index * pattern.PAGE_FACTOR + pattern.START) % 2**64


def damaged(offset: int, replacement: bytes) -> bytes:
    good = pattern.page(SEED, INDEX)
    return good[:offset] + replacement + good[offset + len(replacement) :]


@pytest.mark.parametrize(
    ("found", "diagnosis"),
    [
        (bytes(PAGE), "all zeroes"),
        (pattern.page(SEED, 17), "holds page 17's content"),
        (pattern.page(SEED, 1 << 30), f"holds page {1 << 30}'s content"),
        (pattern.page(3, INDEX), "holds seed 3's content for this page"),
        (pattern.page(0xDEADBEEF12345678, INDEX), "holds seed 16045690981402826360's content for this page"),
        (pattern.page(0xDEADBEEF12345678, 4), "holds seed 16045690981402826360's content for page 4"),
        (pattern.page(0xFEEDFACE12345678, 4), "holds a page of the pattern, of an unknown seed"),
        (damaged(100, bytes([pattern.page(SEED, INDEX)[100] ^ 8])), "one bit flipped: bit 3 of byte 100"),
        (damaged(2048, bytes(2048)), "zeroes from byte 2048 on"),
        (pages(SEED, INDEX - 1, 2)[PAGE - 8 : 2 * PAGE - 8], "shifted by 8 bytes"),
        (pages(SEED, INDEX, 2)[512 : PAGE + 512], "shifted by -512 bytes"),
        (damaged(64, b"some other text"), "15 of 4096 bytes differ"),
    ],
)
def test_wrong_content_is_named(found: bytes, diagnosis: str) -> None:
    assert diagnose(found, SEED, INDEX, candidates=[0xDEADBEEF12345678]) == diagnosis


def test_the_first_page_has_none_before_it() -> None:
    found = pages(SEED, 0, 2)[8 : PAGE + 8]
    assert diagnose(found, SEED, 0) == "shifted by -8 bytes"


class Native:
    """The guest's payload as a function of this process: its parameters are in the ABI's registers anyway,
    HLT becomes RET, and a frame around it keeps what the caller owns.
    """

    # push rbx, r12, r13, r14; mov MODE, eax; (call payload;) and back
    PROLOGUE = bytes.fromhex("53415441554156b8")
    EPILOGUE = bytes.fromhex("415e415d415c5bc3")

    def __init__(self, directory: Path) -> None:
        source = directory / "native.S"
        source.write_text(PAYLOAD.read_text().replace("hlt", "ret"))
        deadline = Deadline.after(20, "assembling the payload")
        command.run(["as", "--64", "-o", directory / "native.o", source], deadline=deadline)
        binary = directory / "native.bin"
        command.run(["objcopy", "-O", "binary", directory / "native.o", binary], deadline=deadline)
        self.payload = binary.read_bytes()

    def run(self, mode: int, memory: bytearray, first: int, seed: int) -> int:
        code = self.PROLOGUE + mode.to_bytes(4, "little") + b"\xe8" + len(self.EPILOGUE).to_bytes(4, "little")
        executable = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        executable.write(code + self.EPILOGUE + self.payload)
        anchor = ctypes.c_char.from_buffer(executable)
        function = ctypes.CFUNCTYPE(
            ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
        )(ctypes.addressof(anchor))
        data = (ctypes.c_char * len(memory)).from_buffer(memory)
        return int(function(ctypes.addressof(data), len(memory) // PAGE, first, seed))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the payload is x86-64 code")
def test_the_guest_computes_the_same_pattern(tmp_path: Path) -> None:
    native = Native(tmp_path)
    for seed, first, count in ((0, 0, 1), (7, 1000, 33), (2**64 - 1, 2**40, 2)):
        memory = bytearray(count * PAGE)
        assert native.run(0, memory, first, seed) == 0
        assert memory == pages(seed, first, count)
        assert native.run(1, memory, first, seed) == 0
        memory[-1] ^= 0x80
        assert native.run(1, memory, first, seed) == 1
