# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image holds, as a directory."""

from __future__ import annotations

from pathlib import Path

from harness.case import Image
from harness.command import run
from harness.deadline import Deadline

SECONDS = 60.0


def unpack(image: Image, target: Path) -> Path:
    waiting = Deadline.after(SECONDS, "unpacking the image")
    run(["fsck.erofs", f"--extract={target}", image.path], deadline=waiting)
    return target
