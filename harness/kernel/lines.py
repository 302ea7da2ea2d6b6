# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions with offsets -> files and lines, of kernels that were built without debug information.

Debug information would make every build a third longer for the few kernels that crash. So the objects that
hold the functions of a trace are compiled once more when there is one, with the same flags and -g1, which
does not change the code (GCC's -fcompare-debug holds it to that); a function whose size is another one now
is left out. A kernel that was configured with debug information is asked directly.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import command
from harness.case import Kernel, PatchedTree
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.kernel import toolchain, trees
from harness.store import Store, digest

# So many are compiled at most for one trace: its outer frames are system calls and the entry code.
OBJECTS = 8
_COMPILE = re.compile(r"^savedcmd_\S+ := (.*?)(?: ; .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a kernel's code. offset: in bytes from the function's start; size: the function's, or 0."""

    function: str
    offset: int
    size: int = 0

    def __str__(self) -> str:
        return f"{self.function}+{self.offset:#x}" + (f"/{self.size:#x}" if self.size else "")


@dataclass(frozen=True, slots=True)
class _Build:
    """Where a kernel was built, as its meta.json says."""

    output: Path
    tree: PatchedTree


@dataclass(frozen=True, slots=True)
class _Symbol:
    address: int
    size: int
    section: str


def at_address(kernel: Kernel, address: int) -> Reference | None:
    """The function that an address of a kernel at its linked place is in (CONFIG_RANDOMIZE_BASE=n)."""
    try:
        text = (kernel.vmlinux.parent / "System.map").read_text(encoding="utf-8")
    except OSError:
        return None
    symbols = sorted(
        (int(value, 16), name) for value, kind, name in map(str.split, text.splitlines()) if kind in "tTwW"
    )
    place = bisect_right(symbols, (address, "\x7f")) - 1
    if place < 0 or place + 1 >= len(symbols):
        return None
    start, name = symbols[place]
    return Reference(name, address - start, symbols[place + 1][0] - start)


def locate(
    kernel: Kernel, references: Sequence[Reference], store: Store, deadline: Deadline
) -> dict[Reference, tuple[str, ...]]:
    """The lines ("mm/memfd_luo.c:123") of the references that can be found, the innermost inlined one first.

    The first references are the most wanted ones. Never raises for what cannot be found out: a build
    directory that is gone or has moved on, an assembler's function, a compiler that fails.
    """
    wanted = tuple(dict.fromkeys(references))
    with suppress(HarnessError, OSError, ValueError, KeyError):
        if ".debug_line" in _ask(["readelf", "-SW", kernel.vmlinux], deadline):
            return _in_object(kernel.vmlinux, wanted, (), deadline)
        build = _build_of(kernel)
        with trees.still(build.tree, deadline):
            if (build.output / ".config").read_bytes() != kernel.config.read_bytes():
                return {}
            return _by_compiling(kernel, build, wanted, store, deadline)
    return {}


def _build_of(kernel: Kernel) -> _Build:
    """Raises OSError, ValueError or KeyError where nobody wrote it down."""
    meta = json.loads((kernel.vmlinux.parent / "meta.json").read_text(encoding="utf-8"))
    tree = PatchedTree(Path(meta["path"]), meta["tree"], meta["version"], ())
    return _Build(Path(meta["output"]), tree)


def _by_compiling(
    kernel: Kernel, build: _Build, wanted: Sequence[Reference], store: Store, deadline: Deadline
) -> dict[Reference, tuple[str, ...]]:
    homes = _homes(build.output, {one.function for one in wanted}, deadline)
    groups: dict[str, list[Reference]] = {}
    for one in wanted:
        for home in homes.get(one.function, ()):
            groups.setdefault(home, []).append(one)
    chosen = list(groups.items())[:OBJECTS]

    def look(item: tuple[str, list[Reference]]) -> dict[Reference, tuple[str, ...]]:
        home, references = item
        with suppress(HarnessError, OSError, KeyError):
            made = _with_lines(kernel, build, home, store, deadline)
            return _in_object(made, references, (f"{build.tree.path}/", f"{build.output}/"), deadline)
        return {}

    found: dict[Reference, tuple[str, ...]] = {}
    with ThreadPoolExecutor(toolchain.jobs()) as pool:
        for places in pool.map(look, chosen):
            found |= {one: lines for one, lines in places.items() if one not in found}
    return found


def _homes(output: Path, functions: Iterable[str], deadline: Deadline) -> dict[str, list[str]]:
    """Which objects of a build define the functions; a static one's name can be in several."""
    names, homes = set(functions), dict[str, list[str]]()
    for line in _ask(["nm", "-A", "--defined-only", "vmlinux.a"], deadline, cwd=output).splitlines():
        place, _, name = line.rpartition(" ")
        if name in names and (parts := place.split(":")) and len(parts) == 3:
            homes.setdefault(name, []).append(parts[1])
    return homes


def _with_lines(kernel: Kernel, build: _Build, home: str, store: Store, deadline: Deadline) -> Path:
    """The object compiled once more with line numbers; kept in the store."""
    place = Path(home)
    saved = (build.output / place.parent / f".{place.name}.cmd").read_text(encoding="utf-8")
    compile_ = _COMPILE.search(saved)
    if compile_ is None:
        raise KeyError(home)

    def make(draft: Path) -> None:
        words = shlex.split(compile_[1])
        words[words.index("-o") + 1] = str(draft / "object.o")
        words = [word for word in words if not word.startswith(("-Wp,-MMD", "-Wp,-MD"))]
        command.run([*words, "-g1"], cwd=build.output, env=toolchain.ENVIRONMENT, deadline=deadline)

    return store.produce("lines", digest(kernel.digest, home), make, deadline=deadline) / "object.o"


def _in_object(
    path: Path, references: Sequence[Reference], prefixes: Sequence[str], deadline: Deadline
) -> dict[Reference, tuple[str, ...]]:
    symbols = _symbols(path, {one.function for one in references}, deadline)
    found: dict[Reference, tuple[str, ...]] = {}
    for one in references:
        for symbol in symbols.get(one.function, ()):
            if one.size and symbol.size and not symbol.size <= one.size < symbol.size + 16:
                continue
            found.setdefault(one, _lines(path, symbol, one, prefixes, deadline))
    return {one: lines for one, lines in found.items() if lines}


def _symbols(path: Path, names: set[str], deadline: Deadline) -> dict[str, list[_Symbol]]:
    """The functions of an object or a kernel, by name."""
    symbols: dict[str, list[_Symbol]] = {}
    for line in _ask(["nm", "-f", "sysv", "--defined-only", path], deadline).splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 7 and fields[0] in names:
            size = int(fields[4] or "0", 16)
            symbols.setdefault(fields[0], []).append(_Symbol(int(fields[1], 16), size, fields[6]))
    return symbols


def _lines(
    path: Path, symbol: _Symbol, one: Reference, prefixes: Sequence[str], deadline: Deadline
) -> tuple[str, ...]:
    # Sections of an object all begin at 0, those of a kernel where they are.
    section = ["-j", symbol.section] if path.suffix == ".o" else []
    address = hex(symbol.address + one.offset)
    said = _ask(["addr2line", "-i", *section, "-e", path, address], deadline)
    places = (line.partition(" (disc")[0] for line in said.splitlines() if "?" not in line)
    return tuple(_short(place, prefixes) for place in places)


def _short(place: str, prefixes: Sequence[str]) -> str:
    file, _, number = place.rpartition(":")
    for prefix in prefixes:
        file = file.removeprefix(prefix)
    file = posixpath.normpath(file).removeprefix(f"{toolchain.TREE_LINK}/")
    return f"{file}:{number}"


def _ask(argv: Sequence[str | Path], deadline: Deadline, cwd: Path | None = None) -> str:
    return command.run(argv, cwd=cwd, deadline=deadline).output
