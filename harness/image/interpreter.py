# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies the running Python interpreter into a root file system, with no more than a program needs.

Everything keeps its path, so that the interpreter finds its library as it does here, whichever way it was
installed: the distribution's, a shared libpython in somebody's home, behind a virtual environment.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.command import run
from harness.deadline import Deadline
from harness.errors import InfraError

COLLECT = Path(__file__).with_name("collect.py")
SECONDS = 60.0


def executable() -> Path:
    """The interpreter's own binary, also where a virtual environment or a version manager is in between."""
    return Path("/proc/self/exe").readlink()


def identity() -> str:
    """What a copy depends on, found without reading the library: the version, and the binary's stamp."""
    return f"{sys.version} {stamp(executable())}"


def stamp(path: Path) -> str:
    """A program's path, size and time of change: a stand-in for its digest that costs nothing."""
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def imports(folder: Path) -> frozenset[str]:
    """The modules that the sources in `folder` import anywhere, also late; relative imports left out."""
    found: set[str] = set()
    for source in folder.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_bytes(), str(source))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module)
    return frozenset(found)


def copy(root: Path, folder: str, modules: Sequence[str], without: Sequence[str]) -> tuple[Path, ...]:
    """Put the interpreter below `root`, with what importing `modules` needs but for `without`.

    folder: the guest's path of the program's own packages, which are in `root` already and get compiled.
    Returns the directories that the loader has to search. Raises InfraError when an import fails or a
    shared library is missing.
    """
    binary = executable()
    done = run(
        [binary, "-I", "-S", "-B", COLLECT, root, folder, ",".join(modules), ",".join(without)],
        deadline=Deadline.after(SECONDS, "collecting the agent's Python modules"),
    )
    objects = [binary, *map(Path, done.output.split("\n") if done.output else ())]
    needed = libraries(objects)
    for path in (binary, *needed):
        place(path, root / path.relative_to("/"))
    # Without this directory the interpreter complains at every start, even if all modules are built in.
    dynload = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    (root / dynload.relative_to("/")).mkdir(parents=True, exist_ok=True)
    return tuple(sorted({path.parent for path in needed}))


def libraries(objects: Iterable[Path]) -> frozenset[Path]:
    """The shared libraries that ELF files load, and the loader itself, by ldd(1)."""
    done = run(
        ["ldd", *sorted(objects)],
        deadline=Deadline.after(SECONDS, "finding the interpreter's shared libraries"),
        check=False,  # status 1 where one of them is linked statically
    )
    if missing := re.findall(r"^\s+(\S+) => not found", done.output, re.MULTILINE):
        raise InfraError(
            f"shared libraries of {sys.executable} are missing: {', '.join(sorted(set(missing)))}"
        )
    return frozenset(map(Path, re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", done.output, re.MULTILINE)))


def place(source: Path, target: Path) -> None:
    """Copy a file's content, following links, to a path whose directories are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
