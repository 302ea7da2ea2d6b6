# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked at in a machine that has died, or will not go on, before QEMU is ended.

QEMU stays when its guest ends (-action shutdown=pause), with registers and memory as the kernel left them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError
from harness.machine import pulse
from harness.machine.qmp import Monitor

LOOK_SECONDS = 2.0
DUMP_SECONDS = 120.0
VMCORE = "vmcore"
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


def dump(monitor: Monitor, directory: Path) -> Path:
    """The guest's memory in a compressed kdump file, which crash(8) and drgn open; the guest stops for it.

    Raises InfraError where QEMU cannot write it.
    """
    path = directory / VMCORE
    until = Deadline.after(DUMP_SECONDS, "the dump of the guest's memory")
    # One that was stopped on the way to it stays so.
    with suppress(InfraError):
        monitor.execute("stop", until)
    monitor.execute("dump-guest-memory", until, paging=False, protocol=f"file:{path}", format="kdump-zlib")
    return path
