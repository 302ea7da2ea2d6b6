# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: a machine that had booted to its agent, kept in the store, and started again in its place.

A snapshot is QEMU's migration stream without the memory (its capability x-ignore-shared), and the memory as
files, which a machine that starts from it maps privately: only what is touched is read, and nothing that
the guest writes goes into them. It belongs to one QEMU, one machine and one pair of kernels (`key`), since a
stream means nothing to any other.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import command
from harness.case import Accelerator, Bench
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError
from harness.machine import arguments
from harness.machine.arguments import Memory, Wires
from harness.machine.console import Line
from harness.machine.qemu import Machine
from harness.store import Store, digest

KIND = "snapshots"
FORMAT = "2"
STATE, CONSOLE, CAPABILITIES, UNUSABLE = "state", "console.json", "capabilities.json", "unusable"
POLL_SECONDS = 0.005
# All snapshots together, on disk; those that were not used for longest go first.
KEPT_BYTES = 4 << 30
PROCESSOR = Path("/proc/cpuinfo")
IDENTITY = ("model name", "stepping", "microcode", "flags")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An entry of the store. trouble: why machines like this one cannot be had from snapshots, or ""."""

    directory: Path

    @property
    def trouble(self) -> str:
        with suppress(FileNotFoundError):
            return (self.directory / UNUSABLE).read_text(encoding="utf-8")
        return ""

    @property
    def memory(self) -> Memory:
        return Memory(self.directory, shared=False)

    def console(self) -> tuple[Line, ...]:
        """What was said until it was taken, at negative times."""
        lines = json.loads((self.directory / CONSOLE).read_text(encoding="utf-8"))
        return tuple(Line(at, text) for at, text in lines)

    def capabilities(self) -> dict[str, str]:
        """What its kernel was found to be able to do, as `save` got it."""
        found: dict[str, str] = json.loads((self.directory / CAPABILITIES).read_text(encoding="utf-8"))
        return found


def key(bench: Bench) -> str:
    """The digest of all that a machine's state depends on: both kernels, the image, the command line, QEMU.

    With KVM the processor as well: the guest has seen what this one can do.
    """
    program = Path(command.find(arguments.PROGRAM) or arguments.PROGRAM).resolve()
    status = program.stat()
    return digest(
        FORMAT,
        f"{program} {status.st_size} {status.st_mtime_ns}",
        *(bench.kernel.digest, bench.next_kernel.digest, bench.image.digest),
        *arguments.command(arguments.PROGRAM, bench, Wires(0, 0, 0)),
        _processor() if bench.choice.accelerator is Accelerator.KVM else "",
    )


def provide(bench: Bench, store: Store, take: Callable[[Path], None], deadline: Deadline) -> Snapshot:
    """The snapshot for a bench's machine; `take(directory)` makes it where the store does not have it."""
    if ready := found(bench, store):
        return ready
    entry = store.produce(KIND, key(bench), take, deadline=deadline)
    _prune(store, entry)
    return Snapshot(entry)


def found(bench: Bench, store: Store) -> Snapshot | None:
    """The snapshot for a bench's machine, if the store has it."""
    entry = store.find(KIND, key(bench))
    if entry is None:
        return None
    with suppress(OSError):
        os.utime(entry)
    return Snapshot(entry)


def disable(snapshot: Snapshot, error: HarnessError) -> str:
    """Remember that machines do not start from this snapshot; returns the trouble that it has from now on."""
    with suppress(OSError):  # it may be gone by now
        _disable(snapshot.directory, error)
    return _trouble(error)


def _disable(directory: Path, error: HarnessError) -> None:
    for file in directory.iterdir():
        file.unlink()
    (directory / UNUSABLE).write_text(_trouble(error), encoding="utf-8")


def _trouble(error: HarnessError) -> str:
    return ": ".join(filter(None, (error.message, error.detail.strip().rpartition("\n")[2])))


def save(machine: Machine, directory: Path, capabilities: Mapping[str, str], deadline: Deadline) -> None:
    """Stop a machine whose memory is in shared files in `directory`, and put the rest of its state there.

    capabilities: what its kernel can do, which is the same for all that start from here. Where QEMU cannot
    save the machine, that is remembered there instead.
    """
    now = machine.elapsed()
    try:
        _migrate(machine, directory / STATE, deadline)
    except InfraError as error:
        _disable(directory, error)
        return
    lines = [(line.at - now, line.text) for line in machine.console]
    (directory / CONSOLE).write_text(json.dumps(lines), encoding="utf-8")
    (directory / CAPABILITIES).write_text(json.dumps(dict(capabilities)), encoding="utf-8")


def _migrate(machine: Machine, target: Path, deadline: Deadline) -> None:
    _prepare(machine, deadline)
    machine.monitor.execute("migrate", deadline, uri=f"exec:cat > {shlex.quote(str(target))}")
    while (status := _status(machine, deadline)) not in ("completed", "failed", "cancelled"):
        deadline.check()
        time.sleep(POLL_SECONDS)
    if status != "completed":
        raise InfraError(f"QEMU cannot save this machine: its migration {status}")


def load(machine: Machine, snapshot: Snapshot, deadline: Deadline) -> None:
    """Have a machine that waits for its state go on; it runs soon after this returns, or ends."""
    _prepare(machine, deadline)
    source = shlex.quote(str(snapshot.directory / STATE))
    machine.monitor.execute("migrate-incoming", deadline, uri=f"exec:cat {source}")


def _prepare(machine: Machine, deadline: Deadline) -> None:
    wanted = [{"capability": "x-ignore-shared", "state": True}]
    machine.monitor.execute("migrate-set-capabilities", deadline, capabilities=wanted)


def _status(machine: Machine, deadline: Deadline) -> str:
    answer = machine.monitor.execute("query-migrate", deadline)
    return str(answer.get("status", "")) if isinstance(answer, dict) else ""


def _processor() -> str:
    """This machine's processor, as far as a guest can tell it from others."""
    lines = PROCESSOR.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    return "\n".join([os.uname().release, *(line for line in lines if line.startswith(IDENTITY))])


def _prune(store: Store, newest: Path) -> None:
    """Remove the snapshots that were not used for longest, beyond what may be kept.

    A machine that runs from one has its files open and keeps them.
    """
    found: list[tuple[bool, float, int, Path]] = []
    for entry in (store.root / KIND).iterdir():
        if entry.is_dir() and entry.name[0] != ".":
            with suppress(FileNotFoundError):  # another run is about to remove it
                size = sum(file.stat().st_blocks * 512 for file in entry.iterdir())
                found.append((entry == newest, entry.stat().st_mtime, size, entry))
    kept = 0
    for is_newest, _, size, entry in sorted(found, reverse=True):
        kept += size
        if kept > KEPT_BYTES and not is_newest:
            shutil.rmtree(entry, ignore_errors=True)
