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
from selftests.vms import MEMORY, NAME, VM, make_guest, preserve, retrieve, says_what_is_missing

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


@pytest.fixture
def modular(bench: Bench, host: Session) -> Session:
    """A host whose KVM is in modules, which are loaded."""
    if option(bench.kernel, "CONFIG_KVM") != "m":
        pytest.skip("KVM is built into this kernel: use --kernel linux-7.3-modules")
    assert kvm_modules(host)
    return host


def kvm_modules(host: Session) -> list[str]:
    """The modules of KVM that are loaded, each before those that it needs."""
    loaded = host.call("modules.loaded")
    return [name for name in ("kvm_amd", "kvm_intel", "kvm", "irqbypass") if name in loaded]


def stay_in_use(host: Session) -> None:
    """KVM's modules refuse to go."""
    before = kvm_modules(host)
    for name in before:
        with raises_errno(errno.EBUSY, errno.EWOULDBLOCK):
            host.call("modules.unload", name=name)
    assert kvm_modules(host) == before


def unload(host: Session) -> None:
    for name in kvm_modules(host):
        host.call("modules.unload", name=name)
    assert not kvm_modules(host)
    with raises_errno(errno.ENOENT, errno.ENODEV, errno.ENXIO):
        host.kvm.create_vm()


@PRESERVING
@pytest.mark.rules("S3", "F5", "F6")
@pytest.mark.parametrize("token", [VM, MEMORY], ids=["vm", "memory"])
def test_module_stays_while_its_file_is_preserved(modular: Session, token: int) -> None:
    """KVM's modules cannot go between the preserve and the close, and can when all is closed."""
    guest = make_guest(modular)
    session = modular.liveupdate.create_session(NAME)
    session.preserve(guest.vm if token == VM else guest.memory, token=token)
    for file in (guest.vcpu, guest.memory, guest.vm):
        file.close()
    stay_in_use(modular)
    session.close()
    unload(modular)


@PRESERVING
@pytest.mark.rules("S3", "F5", "R5")
def test_modules_come_and_go_around_an_update(modular: Session, seed: int) -> None:
    """A guest goes from modules to modules; they stay while anything of it is there, and go after it."""
    guest = make_guest(modular)
    guest.memory.fill(seed=seed)
    preserve(modular, guest)
    for file in (guest.vcpu, guest.memory, guest.vm):
        file.close()
    stay_in_use(modular)

    host = modular.live_update()

    assert kvm_modules(host)
    session, guest = retrieve(host)
    stay_in_use(host)
    guest.memory.verify(seed=seed)
    guest.vcpu.verify(guest.memory, seed=seed)
    session.finish()
    session.close()
    guest.vcpu.close()
    guest.vm.close()
    stay_in_use(host)  # the memory alone holds them
    guest.memory.close()
    unload(host)

    reload_and_use(host, seed)
    free = host.memory_free()
    for _ in range(3):
        reload_and_use(host, seed)
    host.memory_returned(to=free)


def reload_and_use(host: Session, seed: int) -> None:
    """Load KVM's modules, have a guest preserved and released, and unload them."""
    host.call("modules.load")
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    preserve(host, guest).close()
    for file in (guest.vcpu, guest.memory, guest.vm):
        file.close()
    unload(host)


@PRESERVING
@pytest.mark.rules("S3", "R5")
def test_modules_stay_for_what_nobody_retrieved(modular: Session, seed: int) -> None:
    """An incoming file that is not retrieved holds KVM's modules until FINISH, and nothing does after it."""
    guest = make_guest(modular)
    guest.memory.fill(seed=seed)
    preserve(modular, guest)

    host = modular.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    stay_in_use(host)
    session.finish()
    session.close()
    unload(host)


@PRESERVING
@pytest.mark.rules("S2", "S3", "R7")
def test_module_that_comes_too_late(modular: Session, seed: int) -> None:
    """A device that was opened before KVM was loaded refuses for that whole boot; KVM works."""
    guest = make_guest(modular)
    guest.memory.fill(seed=seed)
    preserve(modular, guest)

    modular.kexec.load(command_line=f"{modular.command_line} luh.modules=late")
    host = modular.kexec.reboot()

    assert not kvm_modules(host)
    with raises_errno(errno.EIO):
        host.liveupdate.open()
    assert says_what_is_missing(host)
    host.call("modules.load")
    with raises_errno(errno.EIO):
        host.liveupdate.open()
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)
    for file in (guest.vcpu, guest.memory, guest.vm):
        file.close()
    unload(host)


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
    if option(bench.next_kernel, OPTION) == "y" and bench.next_kernel.abi == bench.kernel.abi:
        pytest.skip("the next kernel knows the handlers: use --next-kernel linux-7.3-without-option")
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.live_update()

    for _ in range(2):
        with raises_errno(errno.EIO):
            host.liveupdate.open()
    assert says_what_is_missing(host)
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)
