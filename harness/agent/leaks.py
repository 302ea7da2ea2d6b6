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
REPORT_BYTES = 64 << 10
FIRST_LINE = "unreferenced object"
# What Linux 7.3 itself leaks at each boot: 8 bytes of rootfs, which it unmounts (rootfs_fs_type,
# init/do_mounts.c); kernel-patches/debug frees them.
MAINLINES = ("ramfs_init_fs_context",)


def supported() -> bool:
    return os.path.exists(FILE)


def find() -> str:
    """Scan until two scans agree, and return the report; "" where nothing leaked.

    An object's first scan only takes its checksum (update_checksum()). What is suspected after the second is
    looked at once more, since a scan can miss a pointer that moved meanwhile.
    """
    time.sleep(AGE_SECONDS)
    _write("scan")
    _write("scan")
    if not _report():
        return ""
    time.sleep(AGE_SECONDS)
    _write("scan")
    return _report()


def new(report: str) -> str:
    """A report without what every boot leaks."""
    head, *objects = report.split(FIRST_LINE)
    return head + "".join(
        f"{FIRST_LINE}{one}" for one in objects if not any(name in one for name in MAINLINES)
    )


def _write(command: str) -> None:
    with open(FILE, "w") as file:
        file.write(command)


def _report() -> str:
    with open(FILE, encoding="utf-8", errors="replace") as file:
        return new(file.read(REPORT_BYTES))


OPERATIONS: dict[str, Callable[..., object]] = {
    "supported": supported,
    "find": find,
}
