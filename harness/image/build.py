# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a guest image: an erofs root file system with the agent, its interpreter, and an init.

Without root, without a network, and reproducibly: the same inputs give the same bytes, unless this machine's
seccomp filter forbids personality(2), so that the agent that has started in it has other addresses each time.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.case import Image, Progress, Update, waiting
from harness.command import find, run
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.image import frozen, interpreter
from harness.image.compiler import COMPILER, SECONDS, SMALL, compiled, tool
from harness.image.frozen import Start
from harness.image.recipe import Recipe
from harness.store import Store, digest

AGENT = Path(__file__).parents[1] / "agent"
LIBRARY, LIBRARY_SOURCE = "libbulk.so", AGENT / "bulk.c"
AGENT_FOLDER = "/luh"
PAYLOAD_FOLDER = "luh/l2"
LINKER_SCRIPT = "payload.lds"
# Not `-m agent`, which loads runpy and importlib first: a quarter of a second under TCG.
START = (
    f"import sys; sys.path.insert(0, {AGENT_FOLDER!r}); from agent.__main__ import main; main(sys.argv[1:])"
)
AGENT_ARGUMENTS = ("--port", "luh.agent")

STRIP, MKFS = "strip", "mkfs.erofs"
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
UUID = "6c756800-0000-4000-8000-000000000001"
# Where programs are that a plain user's PATH leaves out.
ADMINISTRATORS_PATH = "/usr/sbin:/sbin"
BUNDLE = "agent.tar"


def build(recipe: Recipe, store: Store, progress: Progress) -> Image:
    """The image of a recipe, from the store if it was built before of the same inputs.

    Raises UsageError when a tool is missing, InfraError when one fails.
    """
    key = _key(recipe)
    if not (entry := store.find("images", key)):
        started = time.monotonic()
        progress(Update("image", f"building {recipe.name}"))
        deadline = Deadline.after(SECONDS, f"building the image {recipe.name}")
        waits = waiting(progress, "image", "builds the same image")
        entry = store.produce(
            "images", key, lambda draft: _make(recipe, draft, progress), deadline=deadline, waits=waits
        )
        took = time.monotonic() - started
        progress(Update("image", f"built {recipe.name} in {took:.1f} s", done=1.0, finished=True))
    return Image(recipe.name, key, entry / "root.erofs")


def bundle(recipe: Recipe, store: Store) -> Path:
    """A tar file with the agent and the payloads of a recipe, for a machine that has a system of its own."""
    sources = [path for path in sorted(recipe.payloads.iterdir()) if path.is_file()]
    sources += [*_agent_sources(), *_own_sources()]
    key = digest(interpreter.stamp(_tool(COMPILER)), *(path.name for path in sources), *sources)
    waiting = Deadline.after(SECONDS, "bundling the agent")
    return store.produce("bundles", key, lambda draft: _bundle(recipe, draft), deadline=waiting) / BUNDLE


def _bundle(recipe: Recipe, draft: Path) -> None:
    with tarfile.open(draft / BUNDLE, "w") as archive:
        for source in sorted(AGENT.glob("*.py")):
            archive.add(source, f"agent/{source.name}", filter=_anonymous)
        compile_library(draft / LIBRARY)
        _move_in(archive, draft / LIBRARY, "agent")
        for payload in sorted(recipe.payloads.glob("*.S")):
            flat = draft / f"{payload.stem}.bin"
            _assemble(payload, recipe.payloads / LINKER_SCRIPT, flat)
            _move_in(archive, flat, "l2")


def _move_in(archive: tarfile.TarFile, file: Path, folder: str) -> None:
    archive.add(file, f"{folder}/{file.name}", filter=_anonymous)
    file.unlink()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes wherever and whenever it is made."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member


def _key(recipe: Recipe) -> str:
    """The digest of all that goes in: sources by content, programs by their stamps."""
    own_programs = [recipe.shell] * bool(recipe.shell) + [name for _, name in recipe.programs]
    programs = [interpreter.stamp(_tool(name)) for name in (COMPILER, SMALL, STRIP, MKFS, *own_programs)]
    sources = [recipe.init, *(source for _, source in recipe.files)]
    sources += sorted(path for path in recipe.payloads.iterdir() if path.is_file())
    sources += _agent_sources()
    names = "\n".join([repr(recipe.modules), repr(recipe.without), repr(recipe.files), *map(str, sources)])
    names += repr((recipe.programs, recipe.shell))
    return digest(interpreter.identity(), *programs, names, *_own_sources(), *sources)


def _agent_sources() -> list[Path]:
    return [*sorted(AGENT.glob("*.py")), LIBRARY_SOURCE]


def _own_sources() -> list[Path]:
    """What makes an image, and is in it."""
    return sorted(path for path in Path(__file__).parent.iterdir() if path.is_file())


def _tool(name: str) -> Path:
    path = find(name) or shutil.which(name, path=ADMINISTRATORS_PATH)
    if not path:
        raise UsageError(f"{name} is not installed", hint="`luh doctor` says how to install it")
    return Path(path)


def _make(recipe: Recipe, draft: Path, progress: Progress) -> None:
    root, scratch = draft / "root", draft / "scratch"
    start = stage(recipe, root)
    if trouble := frozen.place_agent(root, AGENT_FOLDER, start, scratch):
        text = f"its agent will start anew in each kernel, as none can be kept here: {trouble}"
        progress(Update("image", text, finished=True))
    pack(root, draft / "root.erofs")
    for folder in (root, scratch):
        shutil.rmtree(folder)


def pack(root: Path, target: Path) -> None:
    """Make target an erofs of the directory; of the same content it is the same bytes."""
    # -x-1: no extended attributes of the host's.
    tool([MKFS, "-x-1", "-T0", f"-U{UUID}", "--all-root", "--quiet", target, root])


def stage(recipe: Recipe, root: Path) -> Start:
    """Make the directory `root` and lay out in it what the image holds; returns how its agent is started."""
    for directory in MOUNT_POINTS:
        (root / directory).mkdir(parents=True)
    agent = root / AGENT_FOLDER.strip("/") / "agent"
    agent.mkdir(parents=True)
    for source in sorted(AGENT.glob("*.py")):
        shutil.copyfile(source, agent / source.name)
    own = {"agent" if path.stem == "__init__" else f"agent.{path.stem}" for path in agent.glob("*.py")}
    modules = sorted(own | interpreter.imports(agent) | set(recipe.modules))
    directories = interpreter.copy(root, AGENT_FOLDER, modules, recipe.without)
    compile_library(agent / LIBRARY)
    for source in sorted(recipe.payloads.glob("*.S")):
        _assemble(source, recipe.payloads / LINKER_SCRIPT, root / PAYLOAD_FOLDER / f"{source.stem}.bin")
    for guest, source in recipe.files:
        interpreter.place(source, root / guest.relative_to("/"))
    placed = [*recipe.programs, *([(PurePosixPath("/bin/busybox"), recipe.shell)] if recipe.shell else ())]
    for guest, name in placed:
        _place_program(_tool(name), guest, root)
    if recipe.shell:
        _furnish_shell(_tool(recipe.shell), directories, root)
    start = Start(
        (str(interpreter.executable()), "-I", "-S", "-B", "-c", START),
        AGENT_ARGUMENTS,
        ":".join(map(str, directories)),
        recipe.without,
    )
    thaw = frozen.place_thaw(root, AGENT_FOLDER)
    compile_init(recipe.init, (thaw, *start.interpreter, *start.arguments), start.libraries, root / "init")
    _normalise(root)
    return start


def _assemble(source: Path, script: Path, target: Path) -> None:
    """A payload as KVM runs it: a flat binary for address 0 of the guest, without headers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    flat = ("-Wl,--oformat=binary", "-Wl,-e,0", f"-Wl,-T,{script}")
    compiled(source, target, "-nostdlib", "-static", "-no-pie", *flat)


def _place_program(program: Path, guest: PurePosixPath, root: Path) -> None:
    """A program of this machine, and the libraries that it loads, at their own paths."""
    interpreter.place(program, root / guest.relative_to("/"))
    for library in interpreter.libraries([program]):
        interpreter.place(library, root / library.relative_to("/"))


def _furnish_shell(busybox: Path, directories: Sequence[Path], root: Path) -> None:
    """What makes a shell useful: busybox's applets, and this interpreter and the agent by name."""
    applets = run([busybox, "--list"], deadline=Deadline.after(SECONDS, "listing busybox's applets"))
    for applet in applets.output.split():
        if applet not in ("busybox", "init", "linuxrc"):
            (root / "bin" / applet).symlink_to("busybox")
    python = f"LD_LIBRARY_PATH={':'.join(map(str, directories))} exec {interpreter.executable()}"
    (root / "bin/python3").write_text(f'#!/bin/sh\n{python} "$@"\n')
    (root / "bin/agent").write_text(f'#!/bin/sh\n{python} -I -S -B -c {shlex.quote(START)} "$@"\n')


def compile_init(source: Path, agent: Sequence[str], libraries: str, target: Path) -> None:
    """pid 1, linked statically: it is up before anything else in the image has been read."""
    defines = {
        "AGENT_ARGV": ", ".join(map(json.dumps, agent)),
        "LIBRARY_PATH": json.dumps(libraries),
        "AGENT_FILE": json.dumps(f"{AGENT_FOLDER}/{frozen.FILE}"),
    }
    flags = (f"-D{name}={value}" for name, value in defines.items())
    compiled(source, target, "-Os", "-static", *flags, compiler=SMALL)


def compile_library(target: Path) -> None:
    """What the agent does to many pages (harness/agent/bulk.py)."""
    flags = ("-O2", "-fno-tree-vectorize", "-shared", "-fPIC", "-nostartfiles")
    compiled(LIBRARY_SOURCE, target, *flags)


def _normalise(root: Path) -> None:
    """Take out what differs from one machine to the next: debug information and mode bits."""
    paths = sorted(root.rglob("*"))
    binaries = [path for path in paths if path.is_file() and not path.is_symlink() and _is_elf(path)]
    tool([STRIP, "--strip-unneeded", *binaries])
    root.chmod(0o755)
    for path in paths:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in binaries or _is_script(path) else 0o644)


def _is_elf(path: Path) -> bool:
    return _begins(path, b"\x7fELF")


def _is_script(path: Path) -> bool:
    return _begins(path, b"#!")


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
