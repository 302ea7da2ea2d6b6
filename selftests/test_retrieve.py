# SPDX-License-Identifier: GPL-2.0-or-later
"""In the new kernel: the pieces come back in any order, belong together, and are ordinary again.

At stake: the program that runs the VMs restarts too, and fetches the pieces in the order of its own code,
perhaps twice after a crash of its own. What it gets must be the same VM, and must be good for years and for
the next update.
"""

from __future__ import annotations

import errno

import pytest

from harness.case import MiB
from harness.guest.errors import raises_errno
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, PAGE, VM, make_guest, preserve, retrieve, start_guest

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")


@pytest.mark.rules("R1")
@pytest.mark.parametrize("first", ["vm", "memory"])
def test_memory_belongs_to_its_vm(host: Session, seed: int, first: str) -> None:
    """Whichever is retrieved first, VM and guest_memfd fit together, and fit no other VM."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    if first == "vm":
        vm = session.retrieve_vm(VM)
        memory = session.retrieve_guest_memfd(MEMORY)
    else:
        memory = session.retrieve_guest_memfd(MEMORY)
        vm = session.retrieve_vm(VM)
    with raises_errno(errno.EINVAL):
        host.kvm.create_vm().bind(memory, gpa=0, slot=0)
    start_guest(vm, memory).vcpu.verify(memory, seed=seed)
    session.finish()


@pytest.mark.rules("R2")
def test_token_gives_the_same_file_again(host: Session, seed: int) -> None:
    """A token that is retrieved twice gives two descriptors of one file; one can be closed."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    vms = [session.retrieve_vm(VM) for _ in range(2)]
    memories = [session.retrieve_guest_memfd(MEMORY) for _ in range(2)]
    memories[0].fill(seed=seed + 1, length=1 * MiB)
    memories[1].verify(seed=seed + 1, length=1 * MiB)
    vms[0].bind(memories[0], gpa=0, slot=0)
    with raises_errno(errno.EEXIST):
        vms[1].bind(memories[1], gpa=0, slot=1)  # what the other descriptor has bound is in the way
    vms[0].close()
    memories[0].close()
    vms[1].unbind(0)
    start_guest(vms[1], memories[1]).vcpu.verify(memories[1], seed=seed + 1, length=1 * MiB)
    session.finish()


@pytest.mark.rules("R2")
def test_unknown_token_is_refused(host: Session) -> None:
    """A token that nobody used gives ENOENT, and the others stay retrievable."""
    preserve(host, make_guest(host))

    host = host.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    with raises_errno(errno.ENOENT):
        session.retrieve(99)
    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session("nobody")
    session.retrieve_vm(VM)
    session.retrieve_guest_memfd(MEMORY)
    session.finish()


@pytest.mark.rules("R4")
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_retrieved_memory_is_ordinary(host: Session, seed: int, finished: bool) -> None:
    """A retrieved guest_memfd can be allocated, punched, mapped, faulted and bound like any other."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    preserve(host, guest)

    session, guest = retrieve(host.live_update())

    if finished:
        session.finish()
    memory = guest.memory
    memory.fallocate(2 * MiB, 1 * MiB)
    memory.punch_hole(0, 4 * PAGE)
    memory.verify_zero(offset=0, length=4 * PAGE)
    memory.verify_zero(offset=2 * MiB, length=1 * MiB)
    guest.vcpu.fill(memory, seed=seed + 1, offset=3 * MiB, length=1 * MiB)
    memory.verify(seed=seed + 1, offset=3 * MiB, length=1 * MiB)
    memory.verify(seed=seed, offset=4 * PAGE, length=1 * MiB - 4 * PAGE)
    guest.vm.unbind(0)
    guest.vm.bind(memory, gpa=1 << 30, slot=3, offset=3 * MiB, length=1 * MiB)
    guest.vcpu.verify(memory, seed=seed + 1, offset=3 * MiB, length=1 * MiB)


@pytest.mark.rules("R4", "P1", "P2", "K3")
def test_updates_in_a_row(host: Session, seed: int) -> None:
    """What came through an update goes through the next two as well."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    for hop in range(3):
        preserve(host, guest)
        host = host.live_update()
        session, guest = retrieve(host)
        guest.vcpu.verify(guest.memory, seed=seed + hop)
        guest.memory.verify(seed=seed + hop, candidates=range(seed, seed + hop))
        session.finish()
        session.close()
        guest.memory.fill(seed=seed + hop + 1)
    assert host.identity.kexec_count == 3
