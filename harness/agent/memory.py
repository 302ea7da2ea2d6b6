# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations on the memory of a mapped file (a guest_memfd, a memfd): fill it, check it, damage it.

A guest_memfd has no read(2) or write(2) (kvm_gmem_fops in virt/kvm/guest_memfd.c), and touching a page of it
can raise SIGBUS. So every access is a system call that copies between the mapping and a bounce buffer, a
memfd: a page that cannot be had is EFAULT, and the error names it. The pattern is made and compared in that
buffer, which cannot fault. Offsets and lengths are in bytes.
"""

from __future__ import annotations

import errno
import os

from . import bulk
from .files import File, Mapping, close, memfd_create, punch_hole
from .pattern import PAGE, diagnose, first_difference, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHUNK = 128 * PAGE
DIFFERENCES_SHOWN = 8
BYTES_SHOWN = 16

_bounce: File | None = None


def fill(memory: File, offset: int, length: int, seed: int) -> int:
    """Write the pattern; returns the number of bytes written."""
    for start, size in _chunks(offset, length):
        bulk.fill(_bounce_buffer().mapping, -(-size // PAGE), start // PAGE, seed)
        _push(memory.mapping, start, size)
    return length


def verify(
    memory: File, offset: int, length: int, seed: int, candidates: Sequence[int] = ()
) -> dict[str, object]:
    """Compare with the pattern; reports how many pages differ, and the first few of them in detail."""
    found_bad: list[tuple[int, bytes, bytes]] = []
    for start, size in _chunks(offset, length):
        _pull(memory.mapping, start, size)
        found_bad += _unlike(start // PAGE, size, seed)
    return _report(length, found_bad, lambda found, index: diagnose(found, seed, index, candidates))


def verify_zero(memory: File, offset: int, length: int) -> dict[str, object]:
    """Like verify, where zeroes are expected."""
    found_bad: list[tuple[int, bytes, bytes]] = []
    for start, size in _chunks(offset, length):
        found, expected = _copy_out(memory.mapping, start, size), bytes(size)
        if found != expected:
            found_bad += _differing(start, found, expected)
    return _report(length, found_bad, lambda found, _: f"{len(found) - found.count(0)} bytes are not zero")


def digest(memory: File, offset: int, length: int) -> str:
    """The SHA-256 of the bytes, in hexadecimal."""
    import hashlib

    state = hashlib.sha256()
    for start, size in _chunks(offset, length):
        state.update(_copy_out(memory.mapping, start, size))
    return state.hexdigest()


def read(memory: File, offset: int, length: int) -> bytes:
    return b"".join([_copy_out(memory.mapping, *chunk) for chunk in _chunks(offset, length)])


def write(memory: File, offset: int, data: bytes) -> None:
    for start, size in _chunks(offset, len(data)):
        _copy_in(memory.mapping, start, data[start - offset : start - offset + size])


def touch(memory: File, offset: int, length: int, store: bool = False) -> int:
    """Touch a byte of every page, and store what it held if asked to; returns the number of pages."""
    for at in range(offset, offset + length, PAGE):
        value = _copy_out(memory.mapping, at, 1)
        if store:
            _copy_in(memory.mapping, at, value)
    return len(range(offset, offset + length, PAGE))


def swap_pages(memory: File, first: int, second: int) -> None:
    """Exchange the contents of two pages, given by number."""
    one, two = (read(memory, number * PAGE, PAGE) for number in (first, second))
    write(memory, first * PAGE, two)
    write(memory, second * PAGE, one)


def flip(memory: File, offset: int, mask: int = 0xFF) -> None:
    """Flip the bits of `mask` in one byte."""
    write(memory, offset, bytes([read(memory, offset, 1)[0] ^ mask]))


def drop_page(memory: File, index: int) -> None:
    """Take one page away, so that a hole is left."""
    punch_hole(memory, index * PAGE, PAGE)


def allocated(memory: File, offset: int, length: int) -> list[list[int]]:
    """The runs of pages that the file has, as [first page, number of pages]; touches nothing.

    cachestat(2) also sees pages that were allocated and never written, which mincore(2) does not.
    ENOSYS where the kernel has no CONFIG_CACHESTAT_SYSCALL.
    """
    runs: list[list[int]] = []
    for first, count in _resident(memory, offset // PAGE, -(-length // PAGE)):
        if runs and sum(runs[-1]) == first:
            runs[-1][1] += count
        else:
            runs.append([first, count])
    return runs


def words(memory: File, offset: int, count: int, step: int = PAGE) -> list[int]:
    """The 64-bit words at every `step` bytes."""
    places = range(offset, offset + count * step, step)
    return [int.from_bytes(_copy_out(memory.mapping, at, 8), "little") for at in places]


def release() -> None:
    """Give the bounce buffer back, until it is needed again."""
    global _bounce
    if _bounce is not None:
        close(_bounce)
        _bounce = None


def _resident(memory: File, first: int, count: int) -> Iterator[tuple[int, int]]:
    """Halves a range until each part is all there, all hole, or small enough for a look at each page."""
    cached = bulk.cached_pages(memory.fd, first, count)
    if cached == count:
        yield first, count
    elif cached and (present := bulk.presence(memory.fd, first, count)):
        yield from _runs(present, first)
    elif cached:
        half = count // 2
        yield from _resident(memory, first, half)
        yield from _resident(memory, first + half, count - half)


def _runs(present: bytes, first: int) -> Iterator[tuple[int, int]]:
    end = 0
    while (start := present.find(1, end)) >= 0:
        end = present.find(0, start)
        end = len(present) if end < 0 else end
        yield first + start, end - start


def _report(
    length: int, found_bad: list[tuple[int, bytes, bytes]], diagnosis: Callable[[bytes, int], str]
) -> dict[str, object]:
    differences = []
    for index, found, expected in found_bad[:DIFFERENCES_SHOWN]:
        at = first_difference(found, expected)
        differences.append(
            {
                "page": index,
                "offset": index * PAGE + at,
                "expected": expected[at : at + BYTES_SHOWN].hex(),
                "found": found[at : at + BYTES_SHOWN].hex(),
                "diagnosis": diagnosis(found, index),
            }
        )
    return {"verified": length, "pages_differing": len(found_bad), "differences": differences}


def _differing(start: int, found: bytes, expected: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    for at in range(0, len(found), PAGE):
        one, other = found[at : at + PAGE], expected[at : at + PAGE]
        if one != other:
            yield (start + at) // PAGE, one, other


def _unlike(first: int, size: int, seed: int) -> Iterator[tuple[int, bytes, bytes]]:
    """The pages of the bounce buffer that do not hold the pattern's pages from `first` on."""
    bounce, count = _bounce_buffer(), -(-size // PAGE)
    number = 0
    while number < count:
        number += bulk.matching(bounce.mapping, number, size // PAGE - number, first + number, seed)
        if number < count:
            found = os.pread(bounce.fd, min(PAGE, size - number * PAGE), number * PAGE)
            expected = page(seed, first + number)[: len(found)]
            if found != expected:
                yield first + number, found, expected
            number += 1


def _chunks(offset: int, length: int) -> Iterator[tuple[int, int]]:
    end = offset + length
    while offset < end:
        size = min(CHUNK, end - offset)
        yield offset, size
        offset += size


def _copy_out(mapping: Mapping, offset: int, length: int) -> bytes:
    """The bytes of the mapping; raises EFAULT, naming the page, where one cannot be read."""
    _pull(mapping, offset, length)
    return os.pread(_bounce_buffer().fd, length, 0)


def _copy_in(mapping: Mapping, offset: int, data: bytes) -> None:
    """Store bytes in the mapping; raises EFAULT, naming the page, where one cannot be written."""
    os.pwrite(_bounce_buffer().fd, data, 0)
    _push(mapping, offset, len(data))


def _pull(mapping: Mapping, offset: int, length: int) -> None:
    """From the mapping to the start of the bounce buffer."""
    _move(os.pwritev, mapping, offset, length)


def _push(mapping: Mapping, offset: int, length: int) -> None:
    """From the start of the bounce buffer to the mapping."""
    _move(os.preadv, mapping, offset, length)


def _move(
    copy: Callable[[int, list[memoryview], int], int], mapping: Mapping, offset: int, length: int
) -> None:
    bounce, done = _bounce_buffer(), 0
    while done < length:
        with _window(mapping, offset + done, length - done) as window:
            done += _transfer(copy, bounce.fd, window, done, offset)


def _transfer(
    copy: Callable[[int, list[memoryview], int], int], bounce: int, window: memoryview, done: int, offset: int
) -> int:
    try:
        return copy(bounce, [window], done)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        number = (offset + done) // PAGE
        raise OSError(errno.EFAULT, f"page {number} cannot be touched") from None


def _window(mapping: Mapping, offset: int, length: int) -> memoryview:
    if not 0 <= offset <= offset + length <= mapping.length:
        raise OSError(errno.ERANGE, f"{offset}+{length} is beyond the {mapping.length} bytes of the memory")
    return mapping.view[offset : offset + length]


def _bounce_buffer() -> File:
    global _bounce
    if _bounce is None:
        _bounce = memfd_create(CHUNK, "bounce")
    return _bounce


OPERATIONS: dict[str, Callable[..., object]] = {
    "fill": fill,
    "verify": verify,
    "verify_zero": verify_zero,
    "digest": digest,
    "read": read,
    "write": write,
    "touch": touch,
    "swap_pages": swap_pages,
    "flip": flip,
    "drop_page": drop_page,
    "allocated": allocated,
    "words": words,
}
