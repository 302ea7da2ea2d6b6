# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiler and linker, and how the kernel's make is called, the same for configuration and build."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from harness import command
from harness.deadline import Deadline
from harness.errors import UsageError

ARCH = "x86_64"
# What would change the result or move it elsewhere, were it in the user's environment; times and names
# that the kernel compiles in, so that the same inputs give the same bytes (Documentation/kbuild/
# reproducible-builds.rst). An empty LOCALVERSION keeps scripts/setlocalversion from looking at a repository.
ENVIRONMENT = {
    "ARCH": ARCH,
    "CROSS_COMPILE": "",
    "KBUILD_BUILD_HOST": "luh",
    "KBUILD_BUILD_TIMESTAMP": "2000-01-01 00:00:00 UTC",
    "KBUILD_BUILD_USER": "luh",
    "KBUILD_OUTPUT": "",
    "LC_ALL": "C",
    "LLVM": "",
    "LOCALVERSION": "",
    "MAKEFLAGS": "",
}


@cache
def identity() -> str:
    """The versions of what makes a kernel out of its sources; part of the keys of all that they made."""
    deadline = Deadline.after(30.0, "asking the compiler for its version")
    versions = [command.run([tool, "--version"], deadline=deadline).output for tool in ("gcc", "ld")]
    return "\n".join(version.splitlines()[0] for version in versions)


def make(tree: Path, output: Path, *arguments: str) -> list[str]:
    """The command line of make, out of tree; to be run with ENVIRONMENT.

    Raises UsageError for a place that the kernel's Makefile cannot cope with.
    """
    for path in (tree, output):
        if re.search(r"[\s:]", str(path)):
            raise UsageError(
                f"the kernel cannot be built in {path}: its path has a space or a colon",
                hint="name another place for the store with LUH_STORE",
            )
    return ["make", "-C", str(tree), f"O={output}", f"CC={compiler()}", *arguments]


def compiler() -> str:
    """What make is to call as the compiler."""
    return "ccache gcc" if command.find("ccache") else "gcc"


def jobs() -> int:
    """As many as there are processors for this process."""
    return len(os.sched_getaffinity(0))
