# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel and machine can do, found by trying and never by a version."""

from __future__ import annotations

import errno
import os
import time

from . import faults, kvm, liveupdate, vcpu
from .files import File, memfd_create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_SECONDS = 10.0
PAGE = 4096
MMAP, INIT_SHARED = 1, 2


def capabilities() -> dict[str, str]:
    """By name: "" where the kernel can do it, else the error that it answered. Leaves nothing open."""
    had_device = liveupdate.has_device()
    try:
        return _found_out()
    finally:
        if not had_device:
            liveupdate.close_device()


def _found_out() -> dict[str, str]:
    found = {
        "kvm": _try(_vm_closed),
        "guest_memfd": _try(_guest_memfd_closed),
        "fault_injection": _try(faults.prepare),
    }
    names = ("preserve_memfd", "preserve_vm", "preserve_guest_memfd")
    name = f"luh-probe-{os.getpid()}"
    try:
        session = liveupdate.create_session(name)
    except OSError as error:
        return {**found, **dict.fromkeys(("liveupdate", *names), _reason(error))}
    try:
        found["liveupdate"] = ""
        found["preserve_memfd"] = _try(lambda: _preserve(session, memfd_create(PAGE), 1))
        # In one session, because the guest_memfd needs its VM there.
        found["preserve_vm"] = _try(lambda: _preserve(session, kvm.create_vm(), 2))
        found["preserve_guest_memfd"] = _try(lambda: _preserve_pair(session))
    finally:
        session.close()
    return found


def run_vcpu() -> dict[str, object]:
    """Create a VM and a vCPU and run a few instructions: the proof that KVM works on this machine."""
    started = time.monotonic()
    try:
        vm = kvm.create_vm()
        cpu = vcpu.create(vm)
        first = vcpu.run(cpu, "probe", {}, PROBE_SECONDS)
        second = vcpu.resume(cpu, PROBE_SECONDS)
    except OSError as error:
        return {"ok": False, "reason": str(error), "seconds": time.monotonic() - started}
    exits = [(one["reason"], one.get("io"), one["errno"]) for one in (first, second)]
    ok = exits == [("io", {"out": True, "port": 0x10, "value": 0x42}, 0), ("hlt", None, 0)]
    reason = (
        "a vCPU ran" if ok else f"a vCPU does not run as it should: {first['reason']}, {second['reason']}"
    )
    return {"ok": ok, "reason": reason, "seconds": time.monotonic() - started}


def _try(action: Callable[[], None]) -> str:
    try:
        action()
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, error.errno)}: {error.strerror}"


def _vm_closed() -> None:
    kvm.create_vm().close()


def _guest_memfd_closed() -> None:
    vm = kvm.create_vm()
    try:
        kvm.create_guest_memfd(vm, PAGE, MMAP | INIT_SHARED).close()
    finally:
        vm.close()


def _preserve(session: File, file: File, token: int) -> None:
    try:
        liveupdate.preserve(session, file, token)
    finally:
        file.close()


def _preserve_pair(session: File) -> None:
    vm = kvm.create_vm()
    try:
        liveupdate.preserve(session, vm, 3)
        _preserve(session, kvm.create_guest_memfd(vm, PAGE, MMAP | INIT_SHARED), 4)
    finally:
        vm.close()


OPERATIONS: dict[str, Callable[..., object]] = {
    "capabilities": capabilities,
    "run_vcpu": run_vcpu,
}
