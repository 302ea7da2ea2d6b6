# SPDX-License-Identifier: GPL-2.0-or-later
"""The content that every page gets, and what a page that has other content tells us.

    mix(seed, page) = finalise(seed * SEED_FACTOR + page * PAGE_FACTOR + START)     mod 2^64
    word[k]         = (k * WORD_STEP mod 2^64) XOR mix              k = 0 .. 511, little endian

finalise is that of splitmix64, a bijection: from a page that is found somewhere, the number of the page
that it belongs to can be computed. guest-images/l2/pattern.S computes the same in the guest, bulk.c beside
this file for the agent.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = 4096
WORDS = PAGE // 8
MASK = (1 << 64) - 1

SEED_FACTOR = 0xD1342543DE82EF95
PAGE_FACTOR = 0x9E3779B97F4A7C15
START = 0x6C7568206C326D31
WORD_STEP = 0xA24BAED4963EE407
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
INVERSES = tuple(pow(factor, -1, 1 << 64) for factor in MULTIPLIERS)

# A page as one integer: the words without the mix, and the integer that repeats a word through the page.
BASE = int.from_bytes(
    b"".join([(k * WORD_STEP & MASK).to_bytes(8, "little") for k in range(WORDS)]), "little"
)
ONES = int.from_bytes((1).to_bytes(8, "little") * WORDS, "little")

# A page number or a seed that is computed from found content is believed below these.
PAGES_LIMIT = 1 << 40
SEED_LIMIT = 1 << 32


def mix(seed: int, index: int) -> int:
    """The 64 bits that make a page's content its own."""
    value = (seed * SEED_FACTOR + index * PAGE_FACTOR + START) & MASK
    value = (value ^ value >> 30) * MULTIPLIERS[0] & MASK
    value = (value ^ value >> 27) * MULTIPLIERS[1] & MASK
    return value ^ value >> 31


def unmix(value: int) -> int:
    """The sum that `mix` put into finalise."""
    value ^= value >> 31 ^ value >> 62
    value = value * INVERSES[1] & MASK
    value ^= value >> 27 ^ value >> 54
    value = value * INVERSES[0] & MASK
    return value ^ value >> 30 ^ value >> 60


def page(seed: int, index: int) -> bytes:
    """The content of one page."""
    return _render(mix(seed, index))


def diagnose(found: bytes, seed: int, index: int, candidates: Iterable[int] = ()) -> str:
    """What the content found at page `index` is, in words, where `page(seed, index)` was expected.

    candidates: further seeds that were used, so that stale content is recognised.
    """
    if not any(found):
        return "all zeroes"
    expected = page(seed, index)[: len(found)]
    return (
        _other_page(found, seed, index, candidates)
        or _flipped(found, expected)
        or _cut_off(found, expected)
        or _shifted(found, seed, index)
        or f"{_count(found, expected)} of {len(found)} bytes differ"
    )


def first_difference(found: bytes, expected: bytes) -> int:
    """The offset of the first byte that differs, in two unequal buffers of one length."""
    low, high = 0, len(expected)
    while high - low > 1:
        middle = (low + high) // 2
        if found[low:middle] == expected[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _render(mixed: int) -> bytes:
    return (BASE ^ mixed * ONES).to_bytes(PAGE, "little")


def _other_page(found: bytes, seed: int, index: int, candidates: Iterable[int]) -> str:
    """Names the page and seed that the content was made for, if it is a whole page of the pattern."""
    mixed = int.from_bytes(found[:8], "little")
    if _render(mixed) != found:
        return ""
    total = unmix(mixed)
    if (other := _page_of(total, seed)) < PAGES_LIMIT:
        return f"holds page {other}'s content"
    for stale in candidates:
        if (other := _page_of(total, stale)) < PAGES_LIMIT:
            whose = "this page" if other == index else f"page {other}"
            return f"holds seed {stale}'s content for {whose}"
    if (stale := (total - START - index * PAGE_FACTOR) * pow(SEED_FACTOR, -1, 1 << 64) & MASK) < SEED_LIMIT:
        return f"holds seed {stale}'s content for this page"
    return "holds a page of the pattern, of an unknown seed"


def _page_of(total: int, seed: int) -> int:
    return (total - START - seed * SEED_FACTOR) * pow(PAGE_FACTOR, -1, 1 << 64) & MASK


def _flipped(found: bytes, expected: bytes) -> str:
    difference = int.from_bytes(found, "little") ^ int.from_bytes(expected, "little")
    if difference.bit_count() != 1:
        return ""
    byte, bit = divmod(difference.bit_length() - 1, 8)
    return f"one bit flipped: bit {bit} of byte {byte}"


def _cut_off(found: bytes, expected: bytes) -> str:
    start = first_difference(found, expected)
    return "" if any(found[start:]) else f"zeroes from byte {start} on"


def _shifted(found: bytes, seed: int, index: int) -> str:
    """Content that moved by less than a page, in either direction."""
    before = page(seed, index - 1) if index else b""
    around = before + page(seed, index) + page(seed, index + 1)
    middle = len(found) // 2 & ~7
    at = around.find(found[middle : middle + 64])
    distance = len(before) + middle - at
    return f"shifted by {distance} bytes" if at >= 0 and distance else ""


def _count(found: bytes, expected: bytes) -> int:
    return sum(a != b for a, b in zip(found, expected, strict=True))
