# SPDX-License-Identifier: GPL-2.0-or-later
"""The C compiler, for what an image has of machine code and for what makes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.command import run
from harness.deadline import Deadline

COMPILER = "gcc"
# gcc with another C library: a static program of glibc's finds out first which CPU it runs on, which takes
# 20 ms of each emulated kernel.
SMALL = "musl-gcc"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SECONDS = 120.0


def compiled(source: Path, target: Path, *flags: str, compiler: str = COMPILER) -> Path:
    """Compile and link a file; the same source gives the same bytes. Raises InfraError with what gcc says."""
    tool([compiler, *flags, *WARNINGS, "-Wl,--build-id=none", "-o", target, source])
    return target


def tool(argv: Sequence[str | Path]) -> None:
    """Run a program that makes a part of an image. Raises InfraError where it fails."""
    run(argv, deadline=Deadline.after(SECONDS, f"running {Path(argv[0]).name} for the image"))
