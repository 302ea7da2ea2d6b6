# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run directory keeps so that its case can be run again, here or on another machine.

`case/` holds copies of all that the case names: the patches, the configuration fragments, the scenarios'
files; `case.json` in it is the case itself, whose paths are relative to it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import __version__, command
from harness.case import Case, Environment, Ingredients, KernelDefinition, Medium, Pin, Series
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError, UsageError
from harness.exchange import decode, encode
from harness.layout import Layout

FOLDER, FILE = "case", "case.json"
ASK_SECONDS = 10.0
# What git format-patch puts before a name, and what it calls a cover letter.
NUMBER, COVER_LETTER = re.compile(r"^\d+-"), "0000-"

# The patch files of series, in their order.
Gather = Callable[[tuple[Series, ...]], tuple[Path, ...]]


# ---- writing ----------------------------------------------------------------------------------


def write(case: Case, directory: Path, gather: Gather) -> None:
    """Record the case below the run directory. Raises InfraError where the disk does not take it.

    gather: gives the patch files of series, in their order.
    """
    folder = directory / FOLDER
    try:
        folder.mkdir()
        kernel = _kept(case.kernel, folder / "kernel", gather)
        following = kernel
        if case.next_kernel != case.kernel:
            following = _kept(case.next_kernel, folder / "next", gather)
        nodes = tuple(_kept_node(node, folder) for node in case.scenarios)
        kept = replace(case, kernel=kernel, next_kernel=following, scenarios=nodes)
        (folder / FILE).write_text(json.dumps(encode(kept), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfraError(f"cannot write to {directory}: {error.strerror}") from error


def _kept(definition: KernelDefinition, place: Path, gather: Gather) -> KernelDefinition:
    """The definition with its files copied to a place in the case's folder, and named from there.

    All its series become one folder, whose patches are numbered.
    """
    folder, series = place.parent, place / "series"
    place.mkdir()
    for number, patch in enumerate(gather(definition.series), 1):
        series.mkdir(exist_ok=True)
        shutil.copyfile(patch, series / f"{number:04}-{NUMBER.sub('', patch.name)}")
    fragments = []
    for number, fragment in enumerate(definition.fragments):
        copy = place / f"{number}-{fragment.name}"
        shutil.copyfile(fragment, copy)
        fragments.append(copy.relative_to(folder))
    base = definition.config
    if base:
        shutil.copyfile(base, place / "base.config")
        base = (place / "base.config").relative_to(folder)
    kept = (Series(Medium.FOLDER, str(series.relative_to(folder))),) if definition.series else ()
    return replace(definition, series=kept, fragments=tuple(fragments), config=base, pin=None)


def _kept_node(node: str, folder: Path) -> str:
    """A scenario's node with its file copied to the folder, and named from there."""
    path, separator, inside = node.partition("::")
    if not Path(path).is_file():
        return node
    (folder / "scenarios").mkdir(exist_ok=True)
    shutil.copyfile(path, folder / "scenarios" / Path(path).name)
    return f"scenarios/{Path(path).name}{separator}{inside}"


# ---- reading ----------------------------------------------------------------------------------


def read(directory: Path, layout: Layout, *, anyway: bool = False) -> Case:
    """The case that a run directory records, with its kernels pinned to those that were built then.

    A file of this checkout is taken in the place of a copy that has the same content, so that what was
    built of it is found again. anyway: other kernels will do. Raises UsageError where there is no record.
    """
    folder = directory / FOLDER
    try:
        case = decode(Case, json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        hint = "only runs of this version of the harness and later can be run again"
        raise UsageError(f"{directory} does not record its case", hint=hint) from error
    built = result(directory)
    kernel = _found(case.kernel, folder, layout)
    following = _found(case.next_kernel, folder, layout)
    kernel = replace(kernel, pin=_pin(built.get("kernel"), directory, strict=not anyway))
    following = replace(following, pin=_pin(built.get("next_kernel"), directory, strict=not anyway))
    nodes = tuple(_found_node(node, folder, layout) for node in case.scenarios)
    return replace(case, kernel=kernel, next_kernel=following, scenarios=nodes)


def result(directory: Path) -> dict[str, Any]:
    """result.json of a run directory; {} where there is none as a whole."""
    try:
        made: dict[str, Any] = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made


def own_scenarios(directory: Path, layout: Layout) -> tuple[Path, ...]:
    """The recorded files of scenarios that this checkout does not have with the same content."""
    kept = sorted((directory / FOLDER / "scenarios").glob("*.py"))
    return tuple(copy for copy in kept if not _same(copy, layout.scenarios / copy.name))


def _found(definition: KernelDefinition, folder: Path, layout: Layout) -> KernelDefinition:
    fragments = tuple(
        _own_or(folder / copy, layout.configs / copy.name.partition("-")[2], _same)
        for copy in definition.fragments
    )
    series = tuple(_found_series(folder / one.location, layout) for one in definition.series)
    base = definition.config and folder / definition.config
    return replace(definition, series=series, fragments=fragments, config=base)


def _found_series(copy: Path, layout: Layout) -> Series:
    ours = sorted(path for path in layout.patches.iterdir() if path.is_dir())
    return Series(Medium.FOLDER, str(next((own for own in ours if _same_series(copy, own)), copy)))


def _found_node(node: str, folder: Path, layout: Layout) -> str:
    path, separator, inside = node.partition("::")
    return f"{_own_or(folder / path, layout.scenarios / Path(path).name, _same)}{separator}{inside}"


def _own_or(copy: Path, own: Path, same: Callable[[Path, Path], bool]) -> Path:
    return own if same(copy, own) else copy


def _same(copy: Path, own: Path) -> bool:
    return own.is_file() and copy.read_bytes() == own.read_bytes()


def _same_series(copy: Path, own: Path) -> bool:
    theirs, ours = (
        [path for path in sorted(place.glob("*.patch")) if not path.name.startswith(COVER_LETTER)]
        for place in (copy, own)
    )
    return len(theirs) == len(ours) and all(map(_same, theirs, ours))


def _pin(kernel: dict[str, Any] | None, directory: Path, *, strict: bool) -> Pin | None:
    """What result.json says of a kernel; None where it was not built, or by an earlier version of ours."""
    if not kernel or not kernel.get("ingredients"):
        return None
    made_of = decode(Ingredients, kernel["ingredients"])
    versions = tuple(kernel.get("abi", {}).items())
    return Pin(kernel["digest"], made_of, directory / kernel["config"], versions, strict)


# ---- where it ran -----------------------------------------------------------------------------


def environment(layout: Layout, program: str) -> Environment:
    """The machine and the versions that a run was made with. program: the emulator's."""
    return Environment(
        harness=__version__,
        commit=_commit(layout.root),
        python=sys.version.split()[0],
        emulator=_ask([program, "--version"]).partition("\n")[0],
        system=f"{_pretty_name()}, Linux {platform.release()}",
        processor=_first(r"^model name\s*: (.*)$", Path("/proc/cpuinfo")) or platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _commit(root: Path) -> str:
    """The commit of the checkout, with "-dirty" where files differ from it; "" outside of a repository."""
    commit = _ask(["git", "-C", root, "rev-parse", "HEAD"])
    dirty = _ask(["git", "-C", root, "status", "--porcelain", "--untracked-files=no"])
    return commit + "-dirty" * bool(commit and dirty)


def _ask(argv: list[str | Path]) -> str:
    """What a program says; "" where it is not there or complains."""
    try:
        done = command.run(argv, deadline=Deadline.after(ASK_SECONDS, f"asking {argv[0]}"), check=False)
    except HarnessError:
        return ""
    return done.output.strip() if done.status == 0 else ""


def _pretty_name() -> str:
    return _first(r'^PRETTY_NAME="?(.*?)"?$', Path("/etc/os-release")) or "Linux"


def _first(pattern: str, file: Path) -> str:
    try:
        match = re.search(pattern, file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return match[1] if match else ""
