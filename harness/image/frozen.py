# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts an image's agent on this machine, and puts it into the image as it is then, to go on in the guest.

Under emulation the interpreter's start and the agent's imports are a quarter of a live update: half a million
instructions that run once. They run here instead (freeze.c), and the guest maps their result (thaw.c).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.deadline import Deadline
from harness.image.compiler import SECONDS, compiled

HOME = Path(__file__).parent
FREEZE, THAW = HOME / "freeze.c", HOME / "thaw.c"
FILE, PROGRAM = "frozen", "thaw"
# Where nothing of an interpreter, its heap or its libraries lies.
ADDRESS = 0x70000000
# The folder that it is started in, by a name that is the same on each machine.
HERE = "/proc/self/cwd"
# By these the C library chooses among versions of a function, and the guest's CPU may lack them
# (sysdeps/x86/cpu-tunables.c of glibc; names that it does not know it ignores).
MASKED = (
    *("AVX", "AVX2", "AVX512F", "AVX512VL", "AVX512BW", "AVX512DQ", "AVX512CD", "BMI1", "BMI2", "ERMS"),
    *("FMA", "FMA4", "FSRM", "LZCNT", "MOVBE", "OSXSAVE", "POPCNT", "RTM", "SSSE3", "SSE4_1", "SSE4_2"),
    *("XOP", "XSAVE", "XSAVEC"),
    *("AVX_Fast_Unaligned_Load", "Prefer_AVX2_STRCMP", "Prefer_ERMS", "Prefer_FSRM"),
)
# What the start has here, to come out the same and to be of use elsewhere.
ENVIRONMENT = {
    "GLIBC_TUNABLES": f"glibc.pthread.rseq=0:glibc.cpu.hwcaps={','.join(f'-{name}' for name in MASKED)}",
    "LANG": "C.UTF-8",
    "LD_BIND_NOW": "1",
    "PYTHONHASHSEED": "0",
}
# What the agent has in the guest: of guest-images/init.c, and of the kernel.
GUEST_ENVIRONMENT = {
    "ENV": "/etc/profile",
    "HOME": "/",
    "LANG": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "linux",
}
# By which the interpreter may find its libraries here.
KEPT = ("LD_LIBRARY_PATH",)


@dataclass(frozen=True, slots=True)
class Start:
    """How the guest starts its agent.

    interpreter: the program and its arguments. arguments: the agent's. libraries: what LD_LIBRARY_PATH says.
    without: modules that it must not find.
    """

    interpreter: tuple[str, ...]
    arguments: tuple[str, ...]
    libraries: str
    without: tuple[str, ...]


def place_thaw(root: Path, folder: str) -> str:
    """Compile thaw.c into an image below `root`; returns the program's path in the guest.

    folder: the agent's, a path in the guest. Without a frozen agent the program starts its arguments.
    """
    program = f"{folder}/{PROGRAM}"
    compiled(
        THAW,
        root / program.removeprefix("/"),
        *("-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-no-pie"),
        *(f"-Wl,-Ttext-segment={ADDRESS:#x}", f'-DFROZEN_FILE="{folder}/{FILE}"'),
    )
    return program


def place_agent(root: Path, folder: str, start: Start, scratch: Path) -> str:
    """Freeze the agent of an image below `root`, into the image.

    folder: as above; the agent's package is there, compiled. scratch: a new directory. Returns "", or why
    this machine cannot do it: it takes ptrace(2), and an interpreter that starts with one thread.
    """
    home = root / folder.removeprefix("/")
    _copy_package(home / "agent", scratch / "agent")
    freeze = compiled(FREEZE, scratch / "freeze", "-O2")
    environment = {**ENVIRONMENT, **{name: os.environ[name] for name in KEPT if name in os.environ}}
    # Not -I, with which it would not look at PYTHONHASHSEED.
    isolated = ("-s", "-S", "-B", "-P")
    done = run(
        [
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *(freeze, home / FILE, start.interpreter[0], *isolated, "-c"),
            _program(folder, start),
        ],
        cwd=scratch,
        deadline=Deadline.after(SECONDS, "starting the image's agent"),
        check=False,
    )
    if done.status == 0:
        return ""
    (home / FILE).unlink(missing_ok=True)
    return "; ".join(done.output.splitlines()[-2:]) or f"status {done.status}"


def _copy_package(package: Path, target: Path) -> None:
    """The bytecode alone: with sources beside it, its functions would be told where those lie now."""
    target.mkdir(parents=True)
    for bytecode in (package / "__pycache__").iterdir():
        shutil.copyfile(bytecode, target / f"{bytecode.name.partition('.')[0]}.pyc")
    for library in package.glob("*.so"):
        shutil.copyfile(library, target / library.name)


def _program(folder: str, start: Start) -> str:
    """What the interpreter is given: harness/agent/frozen.py, and then the agent's own main()."""
    argv = [*start.interpreter, *start.arguments]
    environment = {**GUEST_ENVIRONMENT, "LD_LIBRARY_PATH": start.libraries}
    there = (folder, argv, len(start.arguments), environment, f"{folder}/{PROGRAM}")
    return (
        f"import sys; sys.path.insert(0, {HERE!r}); sys.modules.update(dict.fromkeys({start.without!r})); "
        "from agent import frozen, __main__ as agent; "
        f"agent.main(frozen.freeze(*{there!r}))"
    )
