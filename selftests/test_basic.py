# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole promise, once: a virtual machine's memory outlives the kernel of the host that runs it.

At stake for the VM's owner is everything the guest knows. One page that is lost, stale, swapped with
another or damaged by a bit is a file system that breaks days later, and nobody will look for the cause in
the minute of the host's update. So the guest itself checks what it wrote, and the host checks every byte.
"""

from __future__ import annotations

import pytest

from harness.case import MiB
from harness.guest.errors import MemoryDiffers
from harness.guest.resources import GuestMemfd
from harness.guest.session import Session
from selftests.vms import MEMORY, PAGE, VM, make_guest

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

SIZE = 16 * MiB
# What the guest writes, and checks afterwards; the host writes the rest.
GUEST_PART = 5 * MiB

ORDERS = {"vm,memory": (VM, MEMORY), "memory,vm": (MEMORY, VM)}


@pytest.mark.rules("P1", "P2", "P8", "K3", "R1")
@pytest.mark.parametrize("retrieved", ORDERS)
@pytest.mark.parametrize("preserved", ORDERS)
def test_memory_survives(host: Session, seed: int, preserved: str, retrieved: str) -> None:
    """Every byte of a guest's memory is there after a live update, in every order of the steps."""
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(SIZE, mmap=True, init_shared=True)
    vm.bind(memory, gpa=0, slot=0)
    vm.create_vcpu().fill(memory, seed=seed, length=GUEST_PART)
    memory.fill(seed=seed, offset=GUEST_PART)
    files = {VM: vm, MEMORY: memory}
    session = host.liveupdate.create_session("vm0")
    for token in ORDERS[preserved]:
        session.preserve(files[token], token=token)

    before = host.identity
    host = host.live_update()

    assert host.identity.boot_id != before.boot_id
    assert host.identity.previous_release == before.release
    assert before.kexec_count is not None
    assert host.identity.kexec_count == before.kexec_count + 1

    free = host.memory_free()
    session = host.liveupdate.retrieve_session("vm0")
    if retrieved == "vm,memory":
        vm, memory = session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY)
    else:
        memory, vm = session.retrieve_guest_memfd(MEMORY), session.retrieve_vm(VM)
    vm.bind(memory, gpa=0, slot=0)
    vcpu = vm.create_vcpu()
    vcpu.verify(memory, seed=seed, length=GUEST_PART)
    memory.verify(seed=seed)

    session.finish()
    for file in (session, vcpu, memory, vm):
        file.close()
    host.measure("memory_missing_bytes", host.memory_returned(free + SIZE))


def swap(memory: GuestMemfd) -> None:
    memory.swap_pages(100, 3000)


def flip(memory: GuestMemfd) -> None:
    memory.flip(100 * PAGE + 7, mask=0x10)


def drop(memory: GuestMemfd) -> None:
    memory.drop_page(100)


@pytest.mark.parametrize("damage", [swap, flip, drop])
def test_checker_sees_damage(host: Session, seed: int, damage: object) -> None:
    """The checks above fail, and name the page, when a page is swapped, damaged or lost after the update."""
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    session = host.liveupdate.create_session("vm0")
    session.preserve(guest.vm, token=VM)
    session.preserve(guest.memory, token=MEMORY)

    session = (host := host.live_update()).liveupdate.retrieve_session("vm0")

    vm, memory = session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY)
    session.finish()
    vm.bind(memory, gpa=0, slot=0)
    vcpu = vm.create_vcpu()
    vcpu.verify(memory, seed=seed)
    assert callable(damage)
    damage(memory)
    with pytest.raises(MemoryDiffers, match="page 100") as by_guest:
        vcpu.verify(memory, seed=seed)
    with pytest.raises(MemoryDiffers, match="page 100") as by_host:
        memory.verify(seed=seed)
    assert by_guest.value.differences[0].page == by_host.value.differences[0].page == 100
