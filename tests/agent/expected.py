# SPDX-License-Identifier: GPL-2.0-or-later
"""What memory that was filled holds, page by page as pattern.py defines it."""

from __future__ import annotations

from harness.agent.pattern import page


def pages(seed: int, first: int, count: int) -> bytes:
    return b"".join(page(seed, first + number) for number in range(count))
