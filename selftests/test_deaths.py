# SPDX-License-Identifier: GPL-2.0-or-later
"""Updates that are called off, by a decision, by an accident or by a power button.

At stake: a host's update goes wrong more often than it goes right while it is being rolled out. Whoever dies
half way, the guests have to run on as if nobody had tried; and what a reboot does lose must not come back
as something that looks like a guest.
"""

from __future__ import annotations

import errno
import signal

import pytest

from harness.case import MiB
from harness.guest.child import take
from harness.guest.errors import raises_errno
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, PAGE, VM, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV)
by_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.mark.rules("F4", "F5")
@by_signal
def test_who_holds_the_session_dies(host: Session, seed: int, number: signal.Signals) -> None:
    """The death of the process with the session thaws another one's guest, which goes on and goes again."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    host.liveupdate.close()
    free = host.memory_free()
    child = host.spawn()
    session = child.liveupdate.create_session(NAME)
    session.preserve(child.take(guest.vm), token=VM)
    session.preserve(child.take(guest.memory), token=MEMORY)
    with raises_errno(errno.EPERM):
        guest.memory.fallocate(2 * MiB, PAGE)
    stopped = guest.vcpu.touch(guest.memory, 2 * MiB, store=7)
    assert (stopped.errno, stopped.reason) == (errno.EPERM, "memory_fault")

    child.kill(number)

    resumed = guest.vcpu.resume()
    assert (resumed.errno, resumed.reason) == (0, "hlt")
    assert guest.memory.words(2 * MiB, 1) == [7]
    guest.memory.punch_hole(2 * MiB, PAGE)
    host.memory_returned(free)
    preserve(host, guest)
    session, guest = retrieve(host.live_update())
    guest.memory.verify(seed=seed, length=1 * MiB)
    session.finish()


@pytest.mark.rules("F4", "F5")
@by_signal
def test_who_holds_everything_dies(host: Session, seed: int, number: signal.Signals) -> None:
    """A VMM that dies with its session, VM and memory leaves nothing behind, now or after a kexec."""
    host.liveupdate.close()
    free = host.memory_free()
    child = host.spawn()
    vm = child.kvm.create_vm()
    memory = vm.create_guest_memfd(16 * MiB, mmap=True, init_shared=True)
    memory.fill(seed=seed)
    session = child.liveupdate.create_session(NAME)
    session.preserve(vm, token=VM)
    session.preserve(memory, token=MEMORY)

    child.kill(number)

    host.memory_returned(free)
    host = host.live_update()
    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session(NAME)


@pytest.mark.rules("F4", "R5")
@by_signal
def test_who_retrieves_dies(host: Session, seed: int, number: signal.Signals) -> None:
    """A VMM that dies in the new kernel before FINISH, with only a part retrieved, gives all memory back."""
    guest = make_guest(host, 16 * MiB)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    free = host.memory_free()
    child = host.spawn()
    session = child.liveupdate.retrieve_session(NAME)
    session.retrieve_guest_memfd(MEMORY).verify(seed=seed, length=1 * MiB)

    child.kill(number)

    host.memory_returned(free + 16 * MiB)
    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session(NAME)


@pytest.mark.rules("F4", "K1")
def test_kexec_is_cancelled(host: Session, seed: int) -> None:
    """Unloading the next kernel stops the reboot and nothing else; loading it again goes on from there."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    host.kexec.load()
    preserve(host, guest)
    host.kexec.unload()
    with raises_errno(errno.EINVAL):
        host.kexec.reboot()
    with raises_errno(errno.EPERM):
        guest.memory.fallocate(2 * MiB, PAGE)
    guest.vcpu.fill(guest.memory, seed=seed + 1, length=1 * MiB)
    host.kexec.load()

    session, guest = retrieve(host.kexec.reboot())

    guest.memory.verify(seed=seed + 1, length=1 * MiB)
    session.finish()


@pytest.mark.rules("R7", "H1")
def test_new_kernel_without_handover(host: Session, seed: int) -> None:
    """A next kernel that takes nothing over comes up clean, has no sessions, and can do the next update."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host.kexec.load(command_line=f"{host.command_line} kho=off")

    host = host.kexec.reboot()

    assert not host.identity.kho_enabled
    with raises_errno(errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
        host.liveupdate.retrieve_session(NAME)
    guest = make_guest(host)
    guest.vcpu.fill(guest.memory, seed=seed)
    guest.memory.verify(seed=seed)


@pytest.mark.machine(resets=True)
@pytest.mark.rules("K2", "H1")
def test_ordinary_reboot_with_a_session_open(host: Session, seed: int) -> None:
    """After a reboot through the firmware nothing comes back, and the host is as good as new."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.kexec.restart()

    assert host.identity.kexec_count == 0
    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session(NAME)
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    session, guest = retrieve(host.live_update())
    guest.memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("R6")
def test_retrieved_in_one_process_used_in_another(host: Session, seed: int) -> None:
    """Memory may be handed on to any process; a VM stays with the mm that retrieved it."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    child = host.spawn()
    session = child.liveupdate.retrieve_session(NAME)
    memory, vm = session.retrieve_guest_memfd(MEMORY), session.retrieve_vm(VM)

    host_memory, host_vm = take(host, memory), take(host, vm)

    host_memory.verify(seed=seed)
    with raises_errno(errno.EIO):
        host_vm.bind(host_memory, gpa=0, slot=0)
    vm.bind(memory, gpa=0, slot=0)
    vm.create_vcpu().verify(memory, seed=seed)
    session.finish()
    child.kill()
    host_memory.verify(seed=seed)
    with raises_errno(errno.EIO):
        host_vm.create_vcpu()


@pytest.mark.rules("R6")
def test_vm_belongs_to_who_retrieved_its_memory_first(host: Session, seed: int) -> None:
    """Where the memory brought the VM along, the VM is bound to that process."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    child = host.spawn()
    session = child.liveupdate.retrieve_session(NAME)
    memory = session.retrieve_guest_memfd(MEMORY)

    own = take(host, session)
    vm = own.retrieve_vm(VM)

    with raises_errno(errno.EIO):
        vm.create_vcpu()
    child_vm = child.take(vm)
    child_vm.bind(memory, gpa=0, slot=0)
    child_vm.create_vcpu().verify(memory, seed=seed)
    own.finish()
