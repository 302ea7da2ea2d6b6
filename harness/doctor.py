# SPDX-License-Identifier: GPL-2.0-or-later
"""What the harness needs of the machine that it runs on, what is there, and how to get the rest.

Needs the standard library only, as the launcher asks here before there is an environment.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from harness.case import GiB, Progress, Tool, Update
from harness.command import find, run
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError

# A name with a dot is a file that the compiler or the linker finds; all others are programs.
TOOLS = (
    Tool("git", "the tree that patches are applied in", "git"),
    Tool("make", "kernel builds", "make"),
    Tool("gcc", "kernel builds, the guest's init, L2 payloads", "gcc"),
    Tool("ld", "kernel builds", "binutils"),
    Tool("stdio.h", "kernel builds (programs of their own)", "libc6-dev"),
    Tool("musl-gcc", "the guest's init, which is static", "musl-tools"),
    Tool("flex", "kernel configuration", "flex"),
    Tool("bison", "kernel configuration", "bison"),
    Tool("bc", "kernel builds (time constants)", "bc"),
    Tool("perl", "kernel builds (scripts)", "perl"),
    Tool("libelf.h", "kernel builds (objtool)", "libelf-dev"),
    Tool("lz4", "kernel builds (the bzImage)", "lz4"),
    Tool("xz", "unpacking kernel sources", "xz-utils"),
    Tool("mkfs.erofs", "guest images", "erofs-utils"),
    Tool("qemu-system-x86_64", "the machine that the kernels run on", "qemu-system-x86"),
    Tool(
        "ccache",
        "kernel builds: what was compiled once is not compiled again",
        "ccache",
        required=False,
    ),
    Tool("apt-get", "kernel sources from Debian", "apt", required=False),
    Tool("dpkg-deb", "kernel sources from Debian", "dpkg", required=False),
    Tool("busybox", "root shells in the host under test", "busybox-static", required=False),
    Tool("dropbear", "hosts under test that are reached by SSH", "dropbear-bin", required=False),
    Tool("gdb", "looking into both kernels", "gdb", required=False),
    Tool("rsync", "the kernel's own vmtest.sh", "rsync", required=False),
    Tool("sshd", "the tests of machines elsewhere", "openssh-server", required=False),
    Tool("ssh-keygen", "the tests of machines elsewhere", "openssh-client", required=False),
)
# What some of the kernel's own tests are built with besides, by their folder.
SELFTEST_TOOLS = {"kvm": (Tool("uuid/uuid.h", "the kernel's own tests of KVM", "uuid-dev"),)}
# gcc and make as the kernel's Documentation/process/changes.rst says.
OLDEST = {"qemu-system-x86_64": (7, 0), "gcc": (8, 1), "make": (4, 0)}
VERSION_FLAGS = {"mkfs.erofs": "-V"}

FILE_DIRECTORIES = (
    "/usr/include",
    "/usr/local/include",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
)
DISK_NEEDED = 6 * GiB
MEMORY_NEEDED = 2 * GiB
VERSION_SECONDS = 10.0
INSTALL_SECONDS = 1800.0


class State(StrEnum):
    OK = "ok"
    MISSING = "missing"  # nothing works without it
    LIMITED = "limited"  # something is slower, or cannot be done


@dataclass(frozen=True, slots=True)
class Row:
    """One finding. found: a version, a measure, or what is wrong. package: what brings it, or ""."""

    name: str
    state: State
    found: str
    purpose: str
    package: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and the tools that are missing though required."""

    rows: tuple[Row, ...]
    missing: tuple[Tool, ...]

    @property
    def ok(self) -> bool:
        return all(row.state is not State.MISSING for row in self.rows)


def check(store: Path, *, system: Path = Path("/")) -> Report:
    """Look at the machine: tools and their versions, virtualization, memory, the disk that holds `store`.

    Runs every tool once for its version. system: where proc/, sys/ and dev/ are, for tests.
    """
    tools = tuple(map(_tool_row, located(TOOLS)))
    machine = (_cpus(system), _kvm(system), _nesting(system), _memory(system), _disk(store))
    return Report(tools + machine, missing(TOOLS))


def located(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tools with `found` filled in: a path, or ""."""
    return tuple(replace(tool, found=_locate(tool.name)) for tool in tools)


def missing(tools: Sequence[Tool] = TOOLS) -> tuple[Tool, ...]:
    """The required tools that are not there; takes about a millisecond when all are."""
    return tuple(tool for tool in located(tools) if tool.required and not tool.found)


def install_command(tools: Sequence[Tool]) -> str:
    """What a person types to get the tools, or names what to install where there is no apt."""
    packages = " ".join(_packages(tools))
    if not find("apt-get"):
        return f"install, by their names in Debian: {packages}"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {packages}"


def ensure(tools: Sequence[Tool], *, allowed: bool, progress: Progress) -> None:
    """Install what is missing of the required tools, with the distribution's package manager, and say so.

    What is not required comes along where something is installed, but is no reason to install.
    allowed: the user has said `--install`; root needs no such word. Raises UsageError with the command to
    type where this may not or cannot be done here, InfraError when the installation fails.
    """
    if lacking := missing(tools):
        helpful = tuple(tool for tool in located(tools) if not (tool.required or tool.found))
        install((*lacking, *helpful), allowed=allowed, progress=progress)
    if still := missing(lacking):
        raise InfraError(f"still missing after the installation: {', '.join(tool.name for tool in still)}")


def install(tools: Sequence[Tool], *, allowed: bool, progress: Progress) -> None:
    """Install the tools' packages whether they are there or not; otherwise as `ensure`."""
    packages = _packages(tools)
    prefix = _privileges(tools, allowed)
    progress(Update("set-up", f"installing {' '.join(packages)}"))
    deadline = Deadline.after(INSTALL_SECONDS, "installing packages")
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    request = [*apt, "install", "-y", "--no-install-recommends", *packages]

    def show(line: str) -> None:
        progress(Update("set-up", line.strip()))

    # Where the lists are missing or older than the mirror the first try fails, within seconds.
    done = run(request, deadline=deadline, on_line=show, check=False)
    if done.status != 0:
        run([*apt, "update"], deadline=deadline, on_line=show, check=False)
        done = run(request, deadline=deadline, on_line=show, check=False)
    if done.status != 0:
        raise InfraError(
            f"cannot install {' '.join(packages)}", hint=f"try: {install_command(tools)}", detail=done.tail
        )
    progress(Update("set-up", f"installed {' '.join(packages)}", done=1.0, finished=True))


def need(names: Sequence[str], *, allowed: bool, progress: Progress) -> None:
    """As `ensure`, for tools that only some commands need."""
    ensure(
        [replace(tool, required=True) for tool in TOOLS if tool.name in names],
        allowed=allowed,
        progress=progress,
    )


def _privileges(tools: Sequence[Tool], allowed: bool) -> list[str]:
    """What goes before a command that changes the machine; UsageError where we may not run it."""
    if find("apt-get") and os.geteuid() == 0:
        return []
    if find("apt-get") and allowed and find("sudo"):
        waiting = Deadline.after(VERSION_SECONDS, "asking sudo")
        if run(["sudo", "-n", "true"], deadline=waiting, check=False).status == 0:
            return ["sudo", "-n"]
    names = ", ".join(tool.name for tool in tools)
    raise UsageError(f"this machine lacks {names}", hint=install_command(tools))


def _packages(tools: Sequence[Tool]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tool.package for tool in tools))


def _locate(name: str) -> str:
    if Path(name).suffix in (".h", ".a"):
        candidates = (Path(directory) / name for directory in FILE_DIRECTORIES)
        return next((str(path) for path in candidates if path.is_file()), "")
    # Administrators' programs, which a plain user's PATH leaves out.
    return find(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


def _tool_row(tool: Tool) -> Row:
    if not tool.found:
        state = State.MISSING if tool.required else State.LIMITED
        return Row(tool.name, state, "not there", tool.purpose, tool.package)
    if Path(tool.name).suffix in (".h", ".a"):
        return Row(tool.name, State.OK, tool.found, tool.purpose, tool.package)
    version = _version(tool)
    oldest = OLDEST.get(tool.name, ())
    if version and tuple(map(int, version.split(".")[:2])) < oldest:
        needed = ".".join(map(str, oldest))
        return Row(tool.name, State.MISSING, f"{version}, needed {needed}", tool.purpose, tool.package)
    return Row(tool.name, State.OK, version or tool.found, tool.purpose, tool.package)


def _version(tool: Tool) -> str:
    """The first thing in a tool's own words that looks like a version, or ""."""
    argv = [tool.found, VERSION_FLAGS.get(tool.name, "--version")]
    with suppress(InfraError):
        waiting = Deadline.after(VERSION_SECONDS, f"asking {tool.name} for its version")
        output = run(argv, deadline=waiting, check=False).output
        if match := re.search(r"\d+\.\d+(\.\d+)*", output):
            return match.group()
    return ""


def _cpus(system: Path) -> Row:
    text = _read(system / "proc/cpuinfo")
    count = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    flags = next(iter(re.findall(r"^flags\s*:(.*)$", text, re.MULTILINE)), "").split()
    hardware = next((flag for flag in ("vmx", "svm") if flag in flags), "")
    found = f"{count}, {hardware or 'neither vmx nor svm'}"
    return Row("CPUs", State.OK if hardware else State.LIMITED, found, "builds; virtualization in hardware")


def _kvm(system: Path) -> Row:
    device = system / "dev/kvm"
    purpose = "speed; without it QEMU emulates"
    if not device.exists():
        return Row("/dev/kvm", State.LIMITED, "not there", purpose)
    if not os.access(device, os.R_OK | os.W_OK):
        return Row("/dev/kvm", State.LIMITED, "not open to this user (see the group kvm)", purpose)
    return Row("/dev/kvm", State.OK, "there", purpose)


def _nesting(system: Path) -> Row:
    purpose = "virtual machines inside the host under test; else TCG with emulated SVM"
    for module in ("kvm_intel", "kvm_amd"):
        value = _read(system / f"sys/module/{module}/parameters/nested").strip()
        if value:
            on = value in ("1", "Y")
            return Row("nesting", State.OK if on else State.LIMITED, f"{module} nested={value}", purpose)
    return Row("nesting", State.LIMITED, "no KVM module of a CPU vendor", purpose)


def _memory(system: Path) -> Row:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read(system / "proc/meminfo"), re.MULTILINE)
    available = int(match.group(1)) * 1024 if match else 0
    purpose = "the machine under test (1 GiB) and builds"
    return Row("memory", _enough(available, MEMORY_NEEDED), f"{available / GiB:.1f} GiB available", purpose)


def _disk(store: Path) -> Row:
    place = next(path for path in (store, *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / GiB:.1f} GiB free in {store}"
    return Row(
        "disk", _enough(free, DISK_NEEDED), found, f"sources and builds (about {DISK_NEEDED // GiB} GiB)"
    )


def _enough(amount: int, needed: int) -> State:
    return State.OK if amount >= needed else State.LIMITED


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
