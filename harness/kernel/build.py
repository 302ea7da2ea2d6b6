# SPDX-License-Identifier: GPL-2.0-or-later
"""The fourth stage: vmlinux, bzImage and modules, with make, out of tree, and published in the store.

The output directory belongs to a tree's path and a definition's name and stays, so that the next build
compiles only what changed; the finished kernel is keyed by everything that went into it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import command
from harness.case import (
    CompilerWarning,
    Ingredients,
    Kconfig,
    Kernel,
    PatchedTree,
    Pin,
    Progress,
    Update,
    waiting,
)
from harness.deadline import Deadline
from harness.errors import BuildError, HarnessError, InfraError
from harness.kernel import abi, toolchain, trees, warnings
from harness.kernel import config as configuration
from harness.store import Store, digest, locked

BUILD_SECONDS = 4 * 3600.0
# The parts of a kernel, and where make leaves them.
PARTS = {
    "vmlinux": "vmlinux",
    "bzImage": "arch/x86/boot/bzImage",
    "System.map": "System.map",
    "kernel.release": "include/config/kernel.release",
    "config": ".config",
}
# Where make lists the modules, as the objects that they were linked from, and what becomes of them.
MODULES_ORDER, MODULES_DISK = "modules.order", "modules.erofs"
UUID = "6c756800-0000-4000-8000-000000000002"
# By how much an option makes a kernel slower, roughly; together they multiply. KASAN and kmemleak are on each
# allocation, lockdep on each lock.
SLOWNESS = {"KASAN": 2.5, "PROVE_LOCKING": 1.5, "DEBUG_KMEMLEAK": 1.5, "KCSAN": 5.0}
OBJECT = re.compile(r"  (?:CC|AS|AR|LD|HOSTCC)\s+(?:\[M\]\s+)?(\S+)")
# Linux 7.3 with this project's fragments: 1,757 objects for 719 options that are on.
OBJECTS_PER_OPTION = 2.44
COMPILER_ERROR = re.compile(r"(?P<file>[^\s:]+):(?P<line>\d+)(?::\d+)?: (?:fatal )?error: (?P<text>.*)")
OTHER_ERROR = re.compile(r"(?P<text>.*(?:undefined reference to|ld: .*error|error: |\*\*\* ).*)")
# What looks like a kernel that does not compile, but is the machine's fault.
MACHINE_FAULTS = {
    "the disk is full": r"No space left on device|Disk quota exceeded",
    "the machine is out of memory": r"(?:compiler|fatal) error: Killed|Cannot allocate memory",
    "a tool that the build needs is missing": r": (?:command )?not found$",
    "a header of the build's own tools is missing": r"error: (?:\w*elf|openssl/\w+|zlib)\.h: No such file",
}
MOST_OPTIONS = 8
# What a kernel hands over, and in which version: Kernel.abi
Abi = tuple[tuple[str, str], ...]
CONTEXT_BEFORE, CONTEXT_AFTER = 2, 12
WARNINGS = "warnings.json"


def build(
    name: str,
    tree: PatchedTree,
    config: Kconfig,
    store: Store,
    progress: Progress,
    pin: Pin | None = None,
    *,
    watched: tuple[str, ...] = (),
) -> Kernel:
    """The kernel of that tree and configuration; built only where the store does not have it.

    watched: source files that are compiled with W=1 as well, to say what is warned of (see `warned`).
    pin: the kernel that it has to be, which is found out before it is built. Raises BuildError with the
    first error's file and line, whose log is kept beside the output; InfraError where it is not the pin's.
    """
    tools = "\n".join((toolchain.identity(), *watched))
    made_of = Ingredients(tree.version, tree.origin, tree.digest, config.digest, tools)
    key = digest(made_of.tree, made_of.config, made_of.toolchain)
    if pin and pin.digest != key:
        differs = differences(pin, made_of, config)
        if pin.strict:
            raise InfraError(
                f"this is not the kernel that was recorded: {differs[0]}",
                hint="--anyway runs the kernel that can be built here",
                detail="\n".join(differs),
            )
        progress(Update("build", f"not the recorded kernel: {'; '.join(differs)}", finished=True))
    deadline = Deadline.after(BUILD_SECONDS, f"the build of {name}")
    known = store.find("kernel", key) is not None
    entry = store.produce(
        "kernel",
        key,
        lambda draft: _make(name, tree, config, watched, store, draft, deadline, progress),
        deadline=deadline,
        waits=waiting(progress, "build", "builds this kernel"),
    )
    kernel = _kernel(name, entry, tree.subjects, abi.versions(tree.path), made_of)
    text = f"Linux {kernel.release}" + (", built before" if known else "")
    progress(Update("build", text, done=1.0, finished=True))
    return kernel


def warned(kernel: Kernel) -> tuple[CompilerWarning, ...]:
    """What W=1 warns of in the files that were watched when the kernel was built."""
    record = kernel.vmlinux.parent / WARNINGS
    return warnings.read(record) if record.exists() else ()


def pinned(name: str, pin: Pin, store: Store) -> Kernel | None:
    """The very kernel that is wanted, where the store still has it."""
    entry = store.find("kernel", pin.digest)
    if entry is None:
        return None
    meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    return _kernel(name, entry, tuple(meta["subjects"]), pin.abi, pin.ingredients)


def differences(pin: Pin, made_of: Ingredients, config: Kconfig) -> list[str]:
    """What makes this another kernel than the pin's, in a line each."""
    then, found = pin.ingredients, []
    if then.tree != made_of.tree:
        places = (f"Linux {one.version} from {one.origin}" for one in (made_of, then))
        where = " here, ".join(places)
        same = (then.version, then.origin) == (made_of.version, made_of.origin)
        what = f"its content has changed since: {made_of.origin}" if same else f"{where} then"
        found.append(f"the source: {what}")
    if then.config != made_of.config:
        found.append(f"the configuration: {_options_that_differ(config.path, pin.config)}")
    if then.toolchain != made_of.toolchain:
        pairs = zip(made_of.toolchain.splitlines(), then.toolchain.splitlines(), strict=False)
        found += [f"the toolchain: {here} here, {there} then" for here, there in pairs if here != there]
    return found or ["the way that digests are made"]


def _options_that_differ(here: Path, then: Path) -> str:
    ours, theirs = configuration.values(here), configuration.values(then)
    names = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
    said = [f"{name}={ours.get(name, 'n')} here, {theirs.get(name, 'n')} then" for name in names]
    more = f", and {len(said) - MOST_OPTIONS} options more" if len(said) > MOST_OPTIONS else ""
    return ", ".join(said[:MOST_OPTIONS]) + more


def _kernel(name: str, entry: Path, subjects: tuple[str, ...], versions: Abi, made_of: Ingredients) -> Kernel:
    """The kernel of an entry of the store."""
    options = configuration.values(entry / "config")
    modules = entry / MODULES_DISK
    return Kernel(
        name=name,
        digest=entry.name,
        release=(entry / "kernel.release").read_text(encoding="utf-8").strip(),
        vmlinux=entry / "vmlinux",
        bzimage=entry / "bzImage",
        config=entry / "config",
        subjects=subjects,
        slowness=slowness(options),
        appetite=appetite(options),
        abi=versions,
        ingredients=made_of,
        modules=modules if modules.exists() else None,
        hz=int(options.get("HZ", "0")),
    )


def slowness(options: dict[str, str]) -> float:
    """How many times slower than usual a kernel with these options is, for deadlines."""
    return math.prod(factor for option, factor in SLOWNESS.items() if options.get(option) == "y")


def appetite(options: dict[str, str]) -> int:
    """How many times the usual memory a kernel with these options needs.

    KASAN's shadow is an eighth of all memory, taken at boot, and KHO's scratch areas become twice as large as
    all that was taken until then (kho_reserve_scratch()): of 1 GiB nothing would be left.
    """
    return 2 if options.get("KASAN") == "y" else 1


def _make(
    name: str,
    tree: PatchedTree,
    config: Kconfig,
    watched: tuple[str, ...],
    store: Store,
    draft: Path,
    deadline: Deadline,
    progress: Progress,
) -> None:
    """Build in the workspace and copy the result to draft."""
    work = store.workspace("build", digest(str(tree.path), name))
    modular = "m" in configuration.values(config.path).values()
    targets = ("vmlinux", "bzImage", *(("modules",) if modular else ()))
    output, log = work / "output", work / "build.log"
    waits = waiting(progress, "build", "builds in the same tree")
    with locked(work / "lock", deadline, waits=waits), trees.still(tree, deadline):
        output.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        _update_file(config.path, output / ".config")
        with _counted(work / "objects.json", output, config, progress) as meter:
            done = command.run(
                toolchain.make(tree.path, output, f"-j{toolchain.jobs()}", "--output-sync=target", *targets),
                env=toolchain.ENVIRONMENT,
                deadline=deadline,
                log=log,
                on_line=meter.line,
                check=False,
            )
            if done.status != 0:
                raise failure(done.output, tree.path, log)
        for part, place in PARTS.items():
            shutil.copy(output / place, draft / part)
        if modular:
            _collect_modules(output, draft, deadline)
        shutil.copy(log, draft / "build.log")
        if watched:
            _watch(tree.path, output, watched, draft / WARNINGS, deadline, progress)
    meta = {
        "name": name,
        "version": tree.version,
        "tree": tree.digest,
        "path": str(tree.path),
        "output": str(output),
        "config": config.digest,
        "toolchain": toolchain.identity(),
        "subjects": tree.subjects,
        "objects": meter.count,
        "seconds": round(done.seconds, 1),
    }
    (draft / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _collect_modules(output: Path, draft: Path, deadline: Deadline) -> None:
    """A disk for the agent, which loads them in the order of what they need (agent/modules.py)."""
    root = draft / "modules"
    root.mkdir()
    for name in (output / MODULES_ORDER).read_text(encoding="utf-8").split():
        shutil.copy((output / name).with_suffix(".ko"), root)
    flags = ["-x-1", "-T0", f"-U{UUID}", "--all-root", "--quiet"]  # the same modules, the same bytes
    command.run(["mkfs.erofs", *flags, draft / MODULES_DISK, root], deadline=deadline)
    shutil.rmtree(root)


def _watch(
    tree: Path,
    output: Path,
    watched: tuple[str, ...],
    record: Path,
    deadline: Deadline,
    progress: Progress,
) -> None:
    """Compile the objects of the watched files once more, with W=1; the next build puts that right again.

    All objects with W=1 would be a build of its own, in which no compiler cache helps.
    """
    objects = warnings.objects(output, toolchain.TREE_LINK, watched)
    output_of_make = ""
    if objects:
        progress(Update("build", f"{len(objects)} objects with W=1"))
        argv = toolchain.make(tree, output, f"-j{toolchain.jobs()}", "--output-sync=target", "W=1", *objects)
        done = command.run(argv, env=toolchain.ENVIRONMENT, deadline=deadline, check=False)
        if done.status != 0:
            raise failure(done.output, tree, record)
        output_of_make = done.output
    warnings.write(record, warnings.parse(output_of_make.splitlines(), toolchain.TREE_LINK))


def _update_file(source: Path, target: Path) -> None:
    """Copy, but leave a file that has that content already alone: its time makes make work."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copy(source, target)


# ---- progress ---------------------------------------------------------------------------------


class Meter:
    """Counts objects while make names them. total: how many are expected, or 0 where nobody can know."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.count = 0
        self._total = total
        self._progress = progress
        self._started = time.monotonic()

    def line(self, line: str) -> None:
        if match := OBJECT.match(line):
            self.count += 1
            self._progress(self._update(match[1]))

    def _update(self, name: str) -> Update:
        if not self._total:
            return Update("build", f"{self.count} objects: {name}")
        total = max(self._total, self.count)
        left = (time.monotonic() - self._started) * (total - self.count) / self.count
        return Update("build", f"{self.count} of {total} objects: {name}", done=self.count / total, left=left)


@contextmanager
def _counted(record: Path, output: Path, config: Kconfig, progress: Progress) -> Iterator[Meter]:
    """A meter that knows how many objects the last whole build had; it remembers this one's.

    Nobody knows beforehand how much of a build that was begun earlier is left to be done.
    """
    whole = not (output / "scripts").exists()
    total = _expected(record, config) if whole else 0
    meter = Meter(total, progress)
    yield meter
    if whole:
        record.write_text(json.dumps({"objects": meter.count}) + "\n", encoding="utf-8")


def _expected(record: Path, config: Kconfig) -> int:
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["objects"])
    except (OSError, ValueError, KeyError):
        on = [value for value in configuration.values(config.path).values() if value in "ym"]
        return round(len(on) * OBJECTS_PER_OPTION)


# ---- errors -----------------------------------------------------------------------------------


def failure(output: str, tree: Path, log: Path) -> HarnessError:
    """What a failed make's output says: the compiler's first error, or what the machine lacks."""
    text = output.replace(f"{tree}/", "").replace(f"{toolchain.TREE_LINK}/", "")
    lines = text.splitlines()
    for fault, pattern in MACHINE_FAULTS.items():
        if match := re.search(pattern, text, re.MULTILINE):
            number = text.count("\n", 0, match.start())
            return InfraError(
                f"the build failed because {fault}", hint="see `luh doctor`", detail=_context(lines, number)
            )
    for pattern_ in (COMPILER_ERROR, OTHER_ERROR):
        for number, line in enumerate(lines):
            if found := pattern_.fullmatch(line):
                where = "{file}:{line}: ".format(**found.groupdict()) if "file" in found.groupdict() else ""
                return BuildError(
                    f"the kernel does not compile: {where}{found['text'].strip()}",
                    hint=f"the whole log: {log}",
                    detail=_context(lines, number),
                )
    return BuildError(
        "the kernel does not compile", hint=f"the whole log: {log}", detail="\n".join(lines[-20:])
    )


def _context(lines: list[str], number: int) -> str:
    return "\n".join(lines[max(0, number - CONTEXT_BEFORE) : number + CONTEXT_AFTER])
