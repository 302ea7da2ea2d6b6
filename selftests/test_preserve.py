# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs and memories a live update takes along, and which it must refuse.

At stake: an operator who is told "preserved" believes it. What cannot come through has to be refused while
the old kernel still runs and the guest can be moved away, not found missing in the new one.
"""

from __future__ import annotations

import errno
from itertools import permutations, product

import pytest

from harness.case import Bench, MiB
from harness.guest.errors import raises_errno
from harness.guest.resources import File
from harness.guest.session import Session
from selftests.vms import MEMORY, PAGE, VM, make_guest, preserve_files, start_guest

PRESERVING = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")
# include/uapi/linux/kvm.h
CAP_MEMORY_ATTRIBUTES, CAP_VM_TYPES = 233, 235
DEFAULT_VM, SW_PROTECTED_VM = 0, 1


@pytest.mark.rules("S1")
def test_option_is_on_where_it_can_be(bench: Bench) -> None:
    """The option for preserving guest_memfds is on in every kernel that has live update and guest_memfd."""
    options = bench.kernel.config.read_text(encoding="utf-8").splitlines()
    if not any(line.split("=")[0].endswith("LIVEUPDATE_GUEST_MEMFD") for line in options):
        pytest.skip("this kernel has no CONFIG_LIVEUPDATE_GUEST_MEMFD")
    for needed in ("CONFIG_LIVEUPDATE=y", "CONFIG_KVM_GUEST_MEMFD=y", "CONFIG_LIVEUPDATE_GUEST_MEMFD=y"):
        assert needed in options


def software_protected(host: Session) -> int:
    """The type of VMs that can have private memory; skips where KVM has none."""
    if not host.kvm.check_extension(CAP_VM_TYPES) & 1 << SW_PROTECTED_VM:
        pytest.skip("this kernel has no software-protected VMs")
    return SW_PROTECTED_VM


@PRESERVING
@pytest.mark.rules("P1", "K3")
@pytest.mark.parametrize("protected", [False, True], ids=["default", "protected"])
def test_vm_comes_back_with_its_type(host: Session, protected: bool) -> None:
    """A VM comes back as a VM of the type that it had."""
    kind = software_protected(host) if protected else DEFAULT_VM
    vm = host.kvm.create_vm(type=kind)
    attributes = vm.check_extension(CAP_MEMORY_ATTRIBUTES)
    preserve_files(host, {VM: vm})

    host = host.live_update()

    session = host.liveupdate.retrieve_session("vm0")
    restored = session.retrieve_vm(VM)
    assert restored.link == "anon_inode:kvm-vm"
    # Only VMs with private memory have memory attributes.
    assert restored.check_extension(CAP_MEMORY_ATTRIBUTES) == attributes
    assert bool(attributes) == protected
    session.finish()


@PRESERVING
@pytest.mark.rules("P2", "K3")
@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "no-mmap"])
def test_memory_comes_back_with_or_without_mmap(host: Session, mmap: bool) -> None:
    """A shared guest_memfd is taken along whether or not the host can map it, and stays what it was."""
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(4 * MiB, mmap=mmap, init_shared=True)
    memory.fallocate(1 * MiB, 2 * MiB)
    preserve_files(host, {VM: vm, MEMORY: memory})

    host = host.live_update()

    session = host.liveupdate.retrieve_session("vm0")
    memory = session.retrieve_guest_memfd(MEMORY)
    assert memory.size == 4 * MiB
    memory.settled([(256, 512)])
    if mmap:
        memory.verify_zero()
    else:
        with raises_errno(errno.ENODEV):
            memory.touch(0)
    session.finish()


@PRESERVING
@pytest.mark.rules("P3")
@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "no-mmap"])
@pytest.mark.parametrize("protected", [False, True], ids=["default", "protected"])
def test_private_memory_is_refused(host: Session, protected: bool, mmap: bool) -> None:
    """A guest_memfd that is not shared from the start is claimed by nobody, and stays usable."""
    vm = host.kvm.create_vm(type=software_protected(host) if protected else DEFAULT_VM)
    memory = vm.create_guest_memfd(1 * MiB, mmap=mmap)
    session = preserve_files(host, {VM: vm})
    with raises_errno(errno.ENOENT):
        session.preserve(memory, token=MEMORY)
    memory.fallocate(0, 1 * MiB)
    memory.punch_hole(0, PAGE)


@pytest.mark.rules("P3")
def test_protected_vm_has_no_shared_memory(host: Session) -> None:
    """A VM that can have private memory gets no guest_memfd that is shared from the start."""
    vm = host.kvm.create_vm(type=software_protected(host))
    with raises_errno(errno.EINVAL):
        vm.create_guest_memfd(1 * MiB, mmap=True, init_shared=True)


@PRESERVING
@pytest.mark.rules("P8", "K3")
def test_several_memories_of_a_vm(host: Session, seed: int) -> None:
    """All guest_memfds of a VM come through, each with its own content."""
    vm = host.kvm.create_vm()
    memories = [vm.create_guest_memfd(1 * MiB, mmap=True, init_shared=True) for _ in range(4)]
    for number, memory in enumerate(memories):
        memory.fill(seed=seed + number)
    # One before its VM, the others after it.
    preserve_files(host, {10: memories[0], VM: vm, 11: memories[1], 12: memories[2], 13: memories[3]})

    host = host.live_update()

    session = host.liveupdate.retrieve_session("vm0")
    vm = session.retrieve_vm(VM)
    for number in reversed(range(4)):
        memory = session.retrieve_guest_memfd(10 + number)
        memory.verify(seed=seed + number)
        vm.bind(memory, gpa=number * MiB, slot=number)
        vm.create_vcpu(number).verify(memory, seed=seed + number)
    session.finish()


@PRESERVING
@pytest.mark.rules("P8", "R1")
@pytest.mark.parametrize("names", [("one", "one"), ("one", "two")], ids=["one-session", "two-sessions"])
def test_several_vms(host: Session, seed: int, names: tuple[str, str]) -> None:
    """VMs that go together, in one session or in one each, come back each with its own memory."""
    guests = [make_guest(host, 2 * MiB) for _ in names]
    sessions = {name: host.liveupdate.create_session(name) for name in dict.fromkeys(names)}
    for number, (guest, name) in enumerate(zip(guests, names, strict=True)):
        guest.vcpu.fill(guest.memory, seed=seed + number)
        sessions[name].preserve(guest.memory, token=10 + number)
        sessions[name].preserve(guest.vm, token=20 + number)

    host = host.live_update()

    sessions = {name: host.liveupdate.retrieve_session(name) for name in dict.fromkeys(names)}
    for number, name in enumerate(names):
        memory = sessions[name].retrieve_guest_memfd(10 + number)
        guest = start_guest(sessions[name].retrieve_vm(20 + number), memory)
        guest.vcpu.verify(memory, seed=seed + number)
        memory.verify(seed=seed + number)
    for session in sessions.values():
        session.finish()


@PRESERVING
@pytest.mark.rules("P8", "R1")
def test_every_order_of_a_vm_with_two_memories(host: Session, seed: int) -> None:
    """All six orders of the preserve with all six of the retrieve, a VM with two memories for each."""
    orders = list(product(permutations((VM, MEMORY, MEMORY + 1)), repeat=2))
    for number, (order, _) in enumerate(orders):
        vm = host.kvm.create_vm()
        files: dict[int, File] = {VM: vm}
        for token in (MEMORY, MEMORY + 1):
            memory = vm.create_guest_memfd(4 * PAGE, mmap=True, init_shared=True)
            memory.fill(seed=seed + 2 * number + token)
            files[token] = memory
        preserve_files(host, {token: files[token] for token in order}, f"vm{number}")
        for file in files.values():
            file.close()

    host = host.live_update()

    for number, (_, order) in enumerate(orders):
        session = host.liveupdate.retrieve_session(f"vm{number}")
        memories = {}
        for token in order:
            if token == VM:
                vm = session.retrieve_vm(VM)
            else:
                memories[token] = session.retrieve_guest_memfd(token)
        for token, memory in memories.items():
            vm.bind(memory, gpa=token << 30, slot=token)
            memory.verify(seed=seed + 2 * number + token)
        session.finish()


@PRESERVING
@pytest.mark.rules("P8", "R1")
@pytest.mark.parametrize("names", [("one", "one"), ("one", "two")], ids=["one-session", "two-sessions"])
def test_two_vms_with_two_memories_each(host: Session, seed: int, names: tuple[str, str]) -> None:
    """Four memories of two VMs, preserved crosswise, come back each to its own VM and to no other."""
    vms = [host.kvm.create_vm() for _ in names]
    sessions = {name: host.liveupdate.create_session(name) for name in dict.fromkeys(names)}
    for part in range(2):
        for number, name in enumerate(names):
            memory = vms[number].create_guest_memfd(1 * MiB, mmap=True, init_shared=True)
            memory.fill(seed=seed + 2 * number + part)
            sessions[name].preserve(memory, token=10 + 2 * number + part)
    for number, name in enumerate(names):
        sessions[name].preserve(vms[number], token=number)

    host = host.live_update()

    sessions = {name: host.liveupdate.retrieve_session(name) for name in dict.fromkeys(names)}
    vms = [sessions[name].retrieve_vm(number) for number, name in enumerate(names)]
    for number, name in reversed(list(enumerate(names))):
        for part in range(2):
            memory = sessions[name].retrieve_guest_memfd(10 + 2 * number + part)
            with raises_errno(errno.EINVAL):
                vms[1 - number].bind(memory, gpa=part << 30, slot=part)
            vms[number].bind(memory, gpa=part << 30, slot=part)
            vms[number].create_vcpu(part).verify(memory, seed=seed + 2 * number + part)
    for session in sessions.values():
        session.finish()


@PRESERVING
@pytest.mark.rules("P8")
def test_many_sessions(host: Session, seed: int) -> None:
    """A host with many VMs can keep each in a session of its own."""
    count = 16
    for number in range(count):
        guest = make_guest(host, 16 * PAGE)
        guest.memory.fill(seed=seed + number)
        preserve_files(host, {VM: guest.vm, MEMORY: guest.memory}, f"vm{number}")

    host = host.live_update()

    for number in reversed(range(count)):
        session = host.liveupdate.retrieve_session(f"vm{number}")
        session.retrieve_guest_memfd(MEMORY).verify(seed=seed + number)
        session.finish()
