# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a machine ended, and whose fault that is: a pure function of what was seen of it.

QEMU's word decides (events of its run-state.json, its exit status); the console only adds the kernel's own.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from harness.case import Death
from harness.errors import CrashError, HarnessError, InfraError
from harness.machine.qmp import Event

PANIC = "Kernel panic - not syncing: "
PANIC_END = "---[ end Kernel panic"
RESTART = re.compile(r"reboot: Restarting system|reboot: machine restart")
# kernel/kexec_core.c: the old kernel's last word.
LAST_WORD = "kexec_core: Starting new kernel"

TAIL_LINES = 20
PANIC_LINES = 60

# Events after which nothing more is to be expected from the guest. HANG is our own (pulse.py).
FATAL = ("GUEST_PANICKED", "SHUTDOWN", "STUCK", "HANG")
# What QEMU calls the ends that the guest itself brought about.
SHUTDOWNS = {"guest-panic": Death.PANIC, "guest-reset": Death.RESET, "guest-shutdown": Death.POWEROFF}


def death(events: Sequence[Event]) -> Death | None:
    """How the guest died; None where it did not, or where that was not its doing."""
    # That we ended QEMU afterwards is an event as well.
    for event in events:
        if event.name == "HANG":
            return Death.HANG
        if event.name == "SHUTDOWN" and event.reason in SHUTDOWNS:
            return SHUTDOWNS[event.reason]
    return Death.PANIC if any(event.name == "GUEST_PANICKED" for event in events) else None


def between_kernels(console: Sequence[str]) -> bool:
    """Whether one kernel has spoken its last word and the next one not its first."""
    return bool(console) and LAST_WORD in console[-1]


def explain(events: Sequence[Event], status: int | None, console: Sequence[str], log: str) -> HarnessError:
    """The error to raise for a machine that ended.

    events: all of QEMU's so far. status: its exit status as Popen gives it, None while it runs.
    console: the guest's lines. log: the last lines of QEMU's stderr.
    """
    shutdown = next((event.reason for event in events if event.name == "SHUTDOWN"), "")
    stuck = next((event.reason for event in events if event.name == "STUCK"), "")
    tail = "\n".join(console[-TAIL_LINES:])
    if death(events) or any(PANIC in line for line in console):
        return _guest(events, console, tail)
    if stuck:
        return InfraError(f"QEMU stopped the guest: {stuck}", detail=log or tail)
    if shutdown:
        return InfraError(f"QEMU was ended from outside: {shutdown}", detail=log)
    if status is None:
        return InfraError("QEMU hung up, but still runs", detail=log)
    return InfraError(f"QEMU ended by itself: {_status(status)}", detail=log)


def _guest(events: Sequence[Event], console: Sequence[str], tail: str) -> CrashError:
    """The error for a machine that its guest brought down."""
    where = " between the kernels" if between_kernels(console) else ""
    panicked = [number for number, line in enumerate(console) if PANIC in line and PANIC_END not in line]
    how = death(events)
    if how is Death.HANG:
        reason = next(event.reason for event in events if event.name == "HANG")
        return CrashError(f"the machine hangs{where}: {reason}", detail=tail)
    if where:
        return CrashError(f"the machine died{where}", detail=tail)
    if panicked:
        first = min(panicked[-1], max(0, len(console) - TAIL_LINES))
        reason = console[panicked[-1]].partition(PANIC)[2]
        return CrashError(
            f"the kernel panicked: {reason}", detail="\n".join(console[first : first + PANIC_LINES])
        )
    if how is Death.PANIC:
        return CrashError("the kernel panicked without a word on the console", detail=tail)
    if how is Death.RESET and any(RESTART.search(line) for line in console):
        return CrashError("the guest rebooted", detail=tail)
    if how is Death.RESET:
        return CrashError("the machine was reset without a word (a triple fault?)", detail=tail)
    return CrashError("the guest powered the machine off", detail=tail)


def _status(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
