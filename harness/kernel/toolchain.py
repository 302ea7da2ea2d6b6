# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiler and linker, and how the kernel's make is called, the same for configuration and build."""

from __future__ import annotations

import os
import re
import shlex
from functools import cache
from pathlib import Path

from harness import command
from harness.deadline import Deadline
from harness.errors import UsageError

ARCH = "x86_64"
CACHED = Path(__file__).with_name("cached-gcc")
# The link in an output directory by which the build reaches its tree: command lines with a relative path are
# the same wherever tree and output lie, so a compiler cache knows them again. kbuild itself does this with
# ".." for an output directory inside the tree (`srcroot` in the Makefile, since Linux 6.13).
TREE_LINK = "srctree"
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
    """The command line of make, out of tree, to be run with ENVIRONMENT; output gets a link to the tree.

    No path of this machine gets into the kernel: what the compiler calls the tree's directory and the output
    directory, in debug information too, is ".". Raises UsageError for a place that the kernel's Makefile
    cannot cope with.
    """
    for path in (tree, output):
        if re.search(r"[\s:]", str(path)):
            raise UsageError(
                f"the kernel cannot be built in {path}: its path has a space or a colon",
                hint="name another place for the store with LUH_STORE",
            )
    _link(output / TREE_LINK, tree)
    places = (
        f"O={output}",
        f"srcroot={TREE_LINK}",
        f"KCPPFLAGS=-fdebug-prefix-map={output}=. -fdebug-prefix-map={TREE_LINK}=.",
    )
    return ["make", "-C", str(tree), *places, f"CC={compiler()}", *arguments]


def compiler() -> str:
    """What make is to call as the compiler."""
    return f"sh {shlex.quote(str(CACHED))}" if command.find("ccache") else "gcc"


def _link(link: Path, target: Path) -> None:
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def jobs() -> int:
    """As many as there are processors for this process."""
    return len(os.sched_getaffinity(0))
