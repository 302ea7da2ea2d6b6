# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose fault it is when a machine ends."""

from __future__ import annotations

import pytest

from harness.errors import CrashError, InfraError
from harness.machine.ending import explain
from harness.machine.qmp import Event

PANICKED = Event("GUEST_PANICKED")
BOOT = [f"line {number}" for number in range(100)]


def shutdown(reason: str) -> Event:
    return Event("SHUTDOWN", reason)


@pytest.mark.parametrize(
    ("events", "console", "message"),
    [
        (
            [PANICKED, shutdown("guest-reset")],
            ["Kernel panic - not syncing: Oops"],
            "the kernel panicked: Oops",
        ),
        ([PANICKED], [], "the kernel panicked without a word on the console"),
        # Before the driver of the panic device is up, QEMU sees only the reset.
        ([shutdown("guest-reset")], ["Kernel panic - not syncing: VFS"], "the kernel panicked: VFS"),
        ([shutdown("guest-reset")], ["reboot: Restarting system"], "the guest rebooted"),
        (
            [shutdown("guest-reset")],
            ["all is well"],
            "the machine was reset without a word (a triple fault?)",
        ),
        ([shutdown("guest-shutdown")], [], "the guest powered the machine off"),
        # We ended QEMU when we had looked at the guest.
        (
            [shutdown("guest-shutdown"), shutdown("host-qmp-quit")],
            [],
            "the guest powered the machine off",
        ),
        (
            [Event("HANG", "CPU 1 loops with interrupts off"), shutdown("host-qmp-quit")],
            [],
            "the machine hangs: CPU 1 loops with interrupts off",
        ),
        (
            [shutdown("guest-reset")],
            ["kexec_core: Starting new kernel"],
            "the machine died between the kernels",
        ),
    ],
)
def test_the_guests_fault(events: list[Event], console: list[str], message: str) -> None:
    error = explain(events, 0, [*BOOT, *console], "")
    assert isinstance(error, CrashError)
    assert error.message == message
    assert error.detail.splitlines()[-1] == [*BOOT, *console][-1]


@pytest.mark.parametrize(
    ("events", "status", "message"),
    [
        ([Event("STUCK", "internal-error")], None, "QEMU stopped the guest: internal-error"),
        ([shutdown("host-signal")], 0, "QEMU was ended from outside: host-signal"),
        ([], 3, "QEMU ended by itself: status 3"),
        ([], -9, "QEMU ended by itself: killed by SIGKILL"),
        ([], None, "QEMU hung up, but still runs"),
    ],
)
def test_not_the_guests_fault(events: list[Event], status: int | None, message: str) -> None:
    error = explain(events, status, BOOT, "qemu: no more")
    assert isinstance(error, InfraError)
    assert (error.message, error.detail) == (message, "qemu: no more")


def test_the_panic_itself_is_shown_however_long_its_trace() -> None:
    error = explain([PANICKED], 0, [*BOOT, "Kernel panic - not syncing: X", *BOOT], "")
    assert error.detail.splitlines()[0] == "Kernel panic - not syncing: X"
    assert len(error.detail.splitlines()) == 60
