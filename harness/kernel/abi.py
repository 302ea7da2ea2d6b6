# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of what one kernel hands over to the next, as a tree's headers have them.

include/linux/kho/abi/*.h defines a compatible string for KHO's tree (kexec_handover.h), for LUO's (luo.h)
and for each file handler (memfd.h, kvm.h): "kho-v4", "luo-v5", "memfd-v2". A kernel takes what has its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = "include/linux/kho/abi"
COMPATIBLE = re.compile(
    r'^#define\s+(?:KHO_FDT|LUO_ABI|\w+_LUO_FH)_COMPATIBLE\s+"([\w-]+)-(v\d+)"', re.MULTILINE
)


def versions(tree: Path) -> tuple[tuple[str, str], ...]:
    """Name and version of each, sorted: ("kho", "v4"), ("luo", "v5"), ("memfd", "v2")."""
    headers = sorted((tree / FOLDER).glob("*.h"))
    return parse(header.read_text(encoding="utf-8", errors="replace") for header in headers)


def parse(headers: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """As `versions`, of headers' texts."""
    return tuple(sorted({(name, version) for text in headers for name, version in COMPATIBLE.findall(text)}))
