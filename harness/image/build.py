# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a guest image: an erofs root file system with the agent, its interpreter, and an init.

Without root, without a network, and reproducibly: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from harness.case import Image, Progress, Update
from harness.command import find, run
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.image import interpreter
from harness.image.recipe import Recipe
from harness.store import Store, digest

AGENT = Path(__file__).parents[1] / "agent"
AGENT_FOLDER = "/luh"
PAYLOAD_FOLDER = "luh/l2"
LINKER_SCRIPT = "payload.lds"
# Not `-m agent`, which loads runpy and importlib first: a quarter of a second under TCG.
START = (
    f"import sys; sys.path.insert(0, {AGENT_FOLDER!r}); from agent.__main__ import main; main(sys.argv[1:])"
)
AGENT_ARGUMENTS = ("--port", "luh.agent")

COMPILER, STRIP, MKFS = "gcc", "strip", "mkfs.erofs"
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
UUID = "6c756800-0000-4000-8000-000000000001"
SECONDS = 120.0
ELF_MAGIC = b"\x7fELF"


def build(recipe: Recipe, store: Store, progress: Progress) -> Image:
    """The image of a recipe, from the store if it was built before of the same inputs.

    Raises UsageError when a tool is missing, InfraError when one fails.
    """
    key = _key(recipe)
    if not (entry := store.find("images", key)):
        started = time.monotonic()
        progress(Update("image", f"building {recipe.name}"))
        waiting = Deadline.after(SECONDS, f"building the image {recipe.name}")
        entry = store.produce("images", key, lambda draft: _make(recipe, draft), deadline=waiting)
        took = time.monotonic() - started
        progress(Update("image", f"built {recipe.name} in {took:.1f} s", done=1.0, finished=True))
    return Image(recipe.name, key, entry / "root.erofs")


def _key(recipe: Recipe) -> str:
    """The digest of all that goes in: sources by content, programs by their stamps."""
    programs = [interpreter.stamp(_tool(name)) for name in (COMPILER, STRIP, MKFS)]
    own = sorted(Path(__file__).parent.glob("*.py"))
    sources = [recipe.init, *(source for _, source in recipe.files)]
    sources += sorted(path for path in recipe.payloads.iterdir() if path.is_file())
    sources += sorted(AGENT.glob("*.py"))
    names = "\n".join([repr(recipe.modules), repr(recipe.without), repr(recipe.files), *map(str, sources)])
    return digest(interpreter.identity(), *programs, names, *own, *sources)


def _tool(name: str) -> Path:
    path = find(name)
    if not path:
        raise UsageError(f"{name} is not installed", hint="`luh doctor` says how to install it")
    return Path(path)


def _make(recipe: Recipe, draft: Path) -> None:
    root = draft / "root"
    stage(recipe, root)
    flags = [
        "-x-1",
        "-T0",
        f"-U{UUID}",
        "--all-root",
        "--quiet",
    ]  # -x-1: no extended attributes of the host's
    _run([MKFS, *flags, draft / "root.erofs", root])
    shutil.rmtree(root)


def stage(recipe: Recipe, root: Path) -> None:
    """Make the directory `root` and lay out in it what the image holds."""
    for directory in MOUNT_POINTS:
        (root / directory).mkdir(parents=True)
    agent = root / AGENT_FOLDER.strip("/") / "agent"
    agent.mkdir(parents=True)
    for source in sorted(AGENT.glob("*.py")):
        shutil.copyfile(source, agent / source.name)
    own = {"agent" if path.stem == "__init__" else f"agent.{path.stem}" for path in agent.glob("*.py")}
    modules = sorted(own | interpreter.imports(agent) | set(recipe.modules))
    directories = interpreter.copy(root, AGENT_FOLDER, modules, recipe.without)
    for source in sorted(recipe.payloads.glob("*.S")):
        _assemble(source, recipe.payloads / LINKER_SCRIPT, root / PAYLOAD_FOLDER / f"{source.stem}.bin")
    for guest, source in recipe.files:
        interpreter.place(source, root / guest.relative_to("/"))
    _compile_init(recipe.init, directories, root / "init")
    _normalise(root)


def _assemble(source: Path, script: Path, target: Path) -> None:
    """A payload as KVM runs it: a flat binary for address 0 of the guest, without headers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    flat = ["-Wl,--oformat=binary", "-Wl,--build-id=none", "-Wl,-e,0", f"-Wl,-T,{script}"]
    _run([COMPILER, "-nostdlib", "-static", "-no-pie", *flat, "-o", target, source])


def _compile_init(source: Path, directories: Sequence[Path], target: Path) -> None:
    """pid 1, linked statically: it is up before anything else in the image has been read."""
    argv = [str(interpreter.executable()), "-I", "-S", "-B", "-c", START, *AGENT_ARGUMENTS]
    defines = [
        f"-DAGENT_ARGV={', '.join(map(json.dumps, argv))}",
        f"-DLIBRARY_PATH={json.dumps(':'.join(map(str, directories)))}",
    ]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    _run([COMPILER, "-Os", "-static", "-Wl,--build-id=none", *warnings, *defines, "-o", target, source])


def _normalise(root: Path) -> None:
    """Take out what differs from one machine to the next: debug information and mode bits."""
    paths = sorted(root.rglob("*"))
    binaries = [path for path in paths if path.is_file() and _is_elf(path)]
    _run([STRIP, "--strip-unneeded", *binaries])
    root.chmod(0o755)
    for path in paths:
        path.chmod(0o755 if path.is_dir() or path in binaries else 0o644)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ELF_MAGIC)) == ELF_MAGIC


def _run(argv: Sequence[str | Path]) -> None:
    run(argv, deadline=Deadline.after(SECONDS, f"running {Path(argv[0]).name} for the image"))
