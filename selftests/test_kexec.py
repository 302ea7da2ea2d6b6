# SPDX-License-Identifier: GPL-2.0-or-later
"""The kexec itself: when it must refuse to go, and what arrives when it goes.

At stake: the kexec is the point of no return. A guest_memfd that goes without its VM arrives as memory that
nobody can run, so the kernel has to stop before it is too late, and be fully usable after that.
"""

from __future__ import annotations

import errno

import pytest

from harness.case import MiB
from harness.guest.errors import raises_errno
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, PAGE, SIZE, VM, Guest, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

WHERE_THE_VM_IS = ("nowhere", "in-another-session", "another-vm", "closed", "closed-before")


def preserve_without_its_vm(host: Session, guest: Guest, where: str) -> None:
    """Leave the guest's memory in session NAME, and its VM where the word says."""
    session = host.liveupdate.create_session(NAME)
    if where == "closed-before":
        guest.vcpu.close()
        guest.vm.close()
    session.preserve(guest.memory, token=MEMORY)
    if where == "in-another-session":
        host.liveupdate.create_session("other").preserve(guest.vm, token=VM)
    elif where == "another-vm":
        session.preserve(host.kvm.create_vm(), token=VM)
    elif where == "closed":
        guest.vcpu.close()
        guest.vm.close()


@pytest.mark.rules("K1")
@pytest.mark.parametrize("where", WHERE_THE_VM_IS)
def test_memory_without_its_vm_stays(host: Session, seed: int, where: str) -> None:
    """reboot(KEXEC) refuses to leave with a guest_memfd whose VM stays, and nothing is lost by that."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    preserve_without_its_vm(host, guest, where)
    host.kexec.load()

    with raises_errno(errno.ENOENT):
        host.kexec.reboot()

    assert host.kexec.loaded
    guest.memory.verify(seed=seed, length=1 * MiB)
    with raises_errno(errno.EPERM):
        guest.memory.fallocate(2 * MiB, PAGE)
    with raises_errno(errno.EFAULT):
        guest.memory.touch(2 * MiB)


@pytest.mark.rules("K1", "F4")
def test_refused_kexec_can_be_called_off(host: Session, seed: int) -> None:
    """After a refused kexec the session can be closed, and the guest is as free as before."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    session = host.liveupdate.create_session(NAME)
    session.preserve(guest.memory, token=MEMORY)
    host.kexec.load()
    with raises_errno(errno.ENOENT):
        host.kexec.reboot()

    session.close()

    guest.vcpu.fill(guest.memory, seed=seed, offset=1 * MiB, length=1 * MiB)
    guest.memory.verify(seed=seed, length=2 * MiB)


@pytest.mark.rules("K1")
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_refused_kexec_works_once_the_vm_is_added(host: Session, seed: int, closed: bool) -> None:
    """With the VM in the session the next reboot(KEXEC) goes, also when its fds are closed by then."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    session = host.liveupdate.create_session(NAME)
    session.preserve(guest.memory, token=MEMORY)
    host.kexec.load()
    with raises_errno(errno.ENOENT):
        host.kexec.reboot()
    session.preserve(guest.vm, token=VM)
    if closed:
        for file in (guest.vcpu, guest.memory, guest.vm):
            file.close()

    session, guest = retrieve(host.kexec.reboot())

    guest.vcpu.verify(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("K2")
def test_kexec_without_a_session_is_an_ordinary_one(host: Session) -> None:
    """Nothing that was not preserved is there after a kexec, and nothing is in its way."""
    make_guest(host).memory.fill(seed=1, length=1 * MiB)

    host = host.live_update()

    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session(NAME)
    make_guest(host).memory.fill(seed=1, length=1 * MiB)


@pytest.mark.rules("K3", "R3")
def test_shape_and_content_arrive(host: Session, seed: int) -> None:
    """Size, pages, holes and allocated pages that nobody wrote arrive as they were."""
    guest = make_guest(host)
    written = [(0, 1), (7, 1), (64, 512), (SIZE // PAGE - 1, 1)]
    for first, count in written:
        guest.memory.fill(seed=seed, offset=first * PAGE, length=count * PAGE)
    untouched = (700, 20)
    guest.memory.fallocate(untouched[0] * PAGE, untouched[1] * PAGE)
    shape = sorted([*written, untouched])
    assert guest.memory.allocated() == shape
    preserve(host, guest)

    session, guest = retrieve(host.live_update())

    assert guest.memory.size == SIZE
    guest.memory.settled(shape)
    for first, count in written:
        guest.memory.verify(seed=seed, offset=first * PAGE, length=count * PAGE)
        guest.vcpu.verify(guest.memory, seed=seed, offset=first * PAGE, length=count * PAGE)
    guest.memory.verify_zero(offset=untouched[0] * PAGE, length=untouched[1] * PAGE)
    session.finish()
    # A hole is touched only now: it is an ordinary one, and reads as zeroes.
    guest.memory.verify_zero(offset=800 * PAGE, length=PAGE)
    assert guest.memory.allocated() == sorted([*shape, (800, 1)])
