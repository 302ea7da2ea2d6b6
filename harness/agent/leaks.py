# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory that nobody points to any more, as kmemleak finds it (mm/kmemleak.c)."""

from __future__ import annotations

import os
import time

from .host import DEBUGFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILE = f"{DEBUGFS}/kmemleak"
# Younger objects are not reported: a pointer to them may only be on its way (MSECS_MIN_AGE, mm/kmemleak.c).
AGE_SECONDS = 5.5
REPORT_BYTES = 16 << 10


def supported() -> bool:
    return os.path.exists(FILE)


def clear() -> None:
    """Forget what has leaked so far: the boot's own is not a scenario's."""
    _write("clear")


def find() -> str:
    """Scan until two scans agree, and return the report; "" where nothing leaked.

    A first scan can miss a pointer that moved meanwhile, so what it suspects is looked at again.
    """
    time.sleep(AGE_SECONDS)
    _write("scan")
    if not _report():
        return ""
    time.sleep(AGE_SECONDS)
    _write("scan")
    return _report()


def _write(command: str) -> None:
    with open(FILE, "w") as file:
        file.write(command)


def _report() -> str:
    with open(FILE, encoding="utf-8", errors="replace") as file:
        return file.read(REPORT_BYTES)


OPERATIONS: dict[str, Callable[..., object]] = {
    "supported": supported,
    "clear": clear,
    "find": find,
}
