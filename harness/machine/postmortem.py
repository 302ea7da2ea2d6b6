# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked at in a machine that has died, or will not go on, before QEMU is ended.

QEMU stays when its guest ends (-action shutdown=pause), with registers and memory as the kernel left them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError
from harness.machine import pulse
from harness.machine.qmp import Monitor

LOOK_SECONDS = 2.0
DUMP_SECONDS = 120.0
VMCORE = "vmcore"
# The flattened form of makedumpfile, which QEMU writes: a page, then pieces, each after its offset and size.
# The first piece is kdump's header, whose names of the system (struct new_utsname) are six strings.
FLATTENED, FIRST_PIECE = b"makedumpfile\0", 4096 + 16
HEADER, NAMES_AT, NAME_BYTES = b"KDUMP   ", 12, 65
SYSTEM = re.compile(r"Linux version (\S+) .*(#\d+ .*)")
# Only the first lines of a CPU say something without a debugger: general registers, RIP, flags.
REGISTER_LINES = 6


def registers(monitor: Monitor) -> str:
    """All CPUs' registers in QEMU's words. Raises InfraError where the monitor does not answer."""
    until = Deadline.after(LOOK_SECONDS, "the CPUs' registers")
    return str(monitor.execute("human-monitor-command", until, command_line="info registers -a"))


def stopped_registers(monitor: Monitor) -> str:
    """The same of a guest that is stopped for it, so that they are exact; "" where QEMU is gone.

    Under emulation a running CPU's address is that of its last indirect jump.
    """
    with suppress(HarnessError):
        monitor.execute("stop", Deadline.after(LOOK_SECONDS, "the guest's stop"))
        return registers(monitor)
    return ""


def resume(monitor: Monitor) -> None:
    """Let a stopped guest go on. Raises InfraError."""
    monitor.execute("cont", Deadline.after(LOOK_SECONDS, "the guest's resumption"))


def address(text: str) -> int:
    """Where the CPU was that ended the machine: the first that did not wait for an interrupt; 0: unknown."""
    cpus = pulse.read(0.0, text).cpus
    awake = [cpu for cpu in cpus if not cpu.halted] or list(cpus)
    return awake[0].address if awake else 0


def brief(text: str) -> tuple[str, ...]:
    """The lines that tell a person something."""
    lines: list[str] = []
    left = 0
    for line in text.splitlines():
        left = REGISTER_LINES if line.startswith("CPU#") else left - 1
        if left >= 0 and line.strip():
            lines.append(line.rstrip())
    return tuple(lines)


def dump(monitor: Monitor, directory: Path, console: Iterable[str]) -> Path:
    """The guest's memory in a compressed kdump file, which crash(8) and drgn open; the guest stops for it.

    console: what its kernels said, by which the file says whose memory it is. Raises InfraError where it
    cannot be written.
    """
    path = directory / VMCORE
    until = Deadline.after(DUMP_SECONDS, "the dump of the guest's memory")
    # One that was stopped on the way to it stays so.
    with suppress(InfraError):
        monitor.execute("stop", until)
    monitor.execute("dump-guest-memory", until, paging=False, protocol=f"file:{path}", format="kdump-zlib")
    try:
        _name_system(path, console)
    except OSError as error:
        raise InfraError(f"cannot complete {path}: {error.strerror}") from error
    return path


def _name_system(path: Path, console: Iterable[str]) -> None:
    """Write the system's names into the header of a dump.

    QEMU leaves them empty but for the machine's, and libkdumpfile, with which drgn reads a dump, refuses
    it for that. A dump in another form stays as it is.
    """
    kernels = [found for line in console if (found := SYSTEM.search(line))]
    if not kernels:
        return
    path.chmod(0o600)  # QEMU made it for reading alone
    with path.open("r+b") as file:
        start = file.read(FIRST_PIECE + len(HEADER))
        if start.startswith(FLATTENED) and start.endswith(HEADER):
            names = ("Linux", "", *kernels[-1].groups())
            file.seek(FIRST_PIECE + NAMES_AT)
            file.writelines(name.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0") for name in names)
