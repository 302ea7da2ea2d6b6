# SPDX-License-Identifier: GPL-2.0-or-later
"""What has to be in place before anything can be preserved, and what happens where it is not.

At stake: a host whose kernel was built or started a little differently. It must say so when it is prepared,
or refuse the update as a whole; it must not come up with half of what it was given.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness.case import Bench, Kernel
from harness.guest.errors import raises_errno
from harness.guest.session import Session
from selftests.vms import NAME, VM, make_guest, preserve, retrieve

OPTION = "CONFIG_LIVEUPDATE_GUEST_MEMFD"
PRESERVING = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")


def option(kernel: Kernel, name: str) -> str:
    """ "y", "m", a number, or "" where it is not set."""
    lines = kernel.config.read_text(encoding="utf-8").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{name}=")), "")


@pytest.mark.rules("S2")
@pytest.mark.parametrize("parameter", ["kho=off", "liveupdate=off"])
def test_switched_off_on_the_command_line(host: Session, seed: int, parameter: str) -> None:
    """A kernel that was started without it takes no session, and runs guests as ever."""
    host.kexec.load(command_line=f"{host.command_line} {parameter}")
    host = host.kexec.reboot()
    with raises_errno(errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
        host.liveupdate.create_session(NAME)
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)


@PRESERVING
@pytest.mark.rules("S2")
def test_handlers_are_there_before_the_first_open(host: Session, seed: int) -> None:
    """The first program that opens the device, right after the boot, finds all handlers."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    host.liveupdate.open()
    session, guest = retrieve(host)
    guest.memory.verify(seed=seed)
    session.finish()


@PRESERVING
@pytest.mark.rules("S2")
def test_device_is_one_process_s(host: Session) -> None:
    """The device is open once; sessions live on when it is closed and another process opens it."""
    session = preserve(host, make_guest(host))
    child = host.spawn()
    with raises_errno(errno.EBUSY):
        child.liveupdate.open()
    host.liveupdate.close()
    child.liveupdate.create_session("other").close()
    assert session.name == NAME
    session.preserve(host.kvm.create_vm(), token=30)


@PRESERVING
@pytest.mark.rules("S3")
def test_module_stays_while_its_file_is_preserved(bench: Bench, host: Session) -> None:
    """KVM's module cannot be removed between the preserve and the close, with all descriptors closed."""
    if option(bench.kernel, "CONFIG_KVM") != "m":
        pytest.skip("KVM is built into this kernel: use a kernel definition with CONFIG_KVM=m")
    vm = host.kvm.create_vm()
    session = host.liveupdate.create_session(NAME)
    session.preserve(vm, token=VM)
    vm.close()
    for name in ("kvm_amd", "kvm_intel", "kvm"):
        with raises_errno(errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOENT):
            host.call("host.delete_module", name=name)
    assert "kvm" in host.files.text("/proc/modules")
    session.close()


@PRESERVING
@pytest.mark.rules("S3")
def test_built_in_needs_no_module(bench: Bench, host: Session) -> None:
    """With KVM built in a guest can be preserved right after the boot."""
    if option(bench.kernel, "CONFIG_KVM") != "y":
        pytest.skip("KVM is a module of this kernel")
    preserve(host, make_guest(host)).close()


@pytest.mark.rules("S4")
def test_kernel_was_built_without_a_warning(bench: Bench, host: Session) -> None:
    """The compiler had nothing to say about the kernel that runs here, nor has the kernel itself."""
    log = Path(bench.kernel.vmlinux).parent / "build.log"
    if not log.is_file():
        pytest.skip("there is no log of this kernel's build")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert [line for line in lines if "warning:" in line.lower()] == []
    assert host.files.text("/proc/sys/kernel/tainted").strip() == "0"


@PRESERVING
@pytest.mark.rules("R7")
def test_new_kernel_does_not_know_the_handlers(bench: Bench, host: Session, seed: int) -> None:
    """A next kernel without our handlers refuses the incoming sessions for that boot, says why, and lives."""
    if option(bench.next_kernel, OPTION) == "y" and bench.next_kernel.digest == bench.kernel.digest:
        pytest.skip("the next kernel knows the handlers: use --next-kernel linux-7.3-without-option")
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.live_update()

    for _ in range(2):
        with raises_errno(errno.EIO):
            host.liveupdate.open()
    assert any("kvm-vm" in line or "kvm-gmem" in line for line in host.kernel_log())
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)
