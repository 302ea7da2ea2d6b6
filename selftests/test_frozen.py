# SPDX-License-Identifier: GPL-2.0-or-later
"""Between the preserve and the kexec: the guest runs on, but its memory keeps its shape.

At stake: a page that appears after the kernel has written down which pages there are would be lost in the
update, and one that goes away would come back as somebody else's. So shape is refused to change, loudly,
while every page that is there goes on working; and an update that is called off leaves no trace.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from itertools import permutations

import pytest

from harness.case import KiB, MiB
from harness.guest.errors import RemoteError, raises_errno
from harness.guest.session import Session
from selftests.vms import PAGE, SIZE, Guest, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

# Pages below are there, pages from here on are holes.
PRESENT = 1 * MiB
HOLE = 2 * MiB
ODD_MODE, PUNCH = 0x40, 0x03
# include/uapi/asm-generic/mman-common.h
MADV_WILLNEED, MADV_DONTNEED, MADV_REMOVE, MADV_COLD, MADV_PAGEOUT = 3, 4, 9, 20, 21
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23
CLOSE_ORDERS = tuple("-".join(names) for names in permutations(("vm", "memory", "vcpu")))
# KVM_MEMORY_ATTRIBUTE_PRIVATE of include/uapi/linux/kvm.h
PRIVATE = 1 << 3


def half_full(host: Session, seed: int) -> Guest:
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=PRESENT)
    return guest


@pytest.mark.rules("F1")
def test_shape_cannot_change(host: Session, seed: int) -> None:
    """Neither allocation nor punching works on a frozen guest_memfd, whatever its arguments."""
    guest = half_full(host, seed)
    preserve(host, guest)
    memory = guest.memory
    attempts = (
        (HOLE, PAGE, None),
        (0, PAGE, None),
        (0, PAGE, PUNCH),
        (HOLE, PAGE, PUNCH),
        (1, PAGE, PUNCH),  # not aligned: EINVAL otherwise
        (2 * SIZE, PAGE, None),  # beyond its end
        (0, PAGE, ODD_MODE),  # no such mode
    )
    for offset, length, mode in attempts:
        with raises_errno(errno.EPERM):
            memory.fallocate(offset, length, mode=mode)
    assert memory.allocated() == [(0, PRESENT // PAGE)]
    memory.verify(seed=seed, length=PRESENT)


@pytest.mark.rules("F2")
def test_host_gets_no_new_page(host: Session, seed: int) -> None:
    """The host's touch of a hole faults and allocates nothing."""
    guest = half_full(host, seed)
    preserve(host, guest)
    for store in (False, True):
        with raises_errno(errno.EFAULT):
            guest.memory.touch(HOLE, store=store)
    assert guest.memory.allocated() == [(0, PRESENT // PAGE)]


@pytest.mark.rules("F2")
@pytest.mark.parametrize("store", [None, 1], ids=["load", "store"])
def test_guest_gets_no_new_page(host: Session, seed: int, store: int | None) -> None:
    """The guest's touch of a hole stops its vCPU with EPERM, and says where."""
    guest = half_full(host, seed)
    preserve(host, guest)
    end = guest.vcpu.touch(guest.memory, HOLE, store=store)
    assert (end.errno, end.reason) == (errno.EPERM, "memory_fault")
    assert (end.fault_gpa, end.fault_size) == (HOLE, PAGE)
    assert guest.memory.allocated() == [(0, PRESENT // PAGE)]


@pytest.mark.rules("F2")
def test_prefault_gets_no_new_page(host: Session, seed: int) -> None:
    """Prefaulting a hole is refused; a range that begins with pages is done as far as they go."""
    guest = half_full(host, seed)
    preserve(host, guest)
    with raises_errno(errno.EPERM):
        guest.vcpu.pre_fault(HOLE, PAGE)
    left = guest.vcpu.pre_fault(PRESENT - PAGE, 2 * PAGE)
    assert left == PAGE
    assert guest.memory.allocated() == [(0, PRESENT // PAGE)]


@pytest.mark.rules("F1", "F2", "F3")
def test_advice_changes_no_shape(host: Session, seed: int) -> None:
    """No madvise(2) adds a page to frozen memory or takes one away; what zaps a mapping loses no content."""
    guest = half_full(host, seed)
    preserve(host, guest)
    with raises_errno(errno.EPERM):
        guest.memory.advise(MADV_REMOVE, 0, PRESENT)
    for advice in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
        guest.memory.advise(advice, 0, PRESENT)
        with raises_errno(errno.EFAULT):
            guest.memory.advise(advice, HOLE)
    for advice in (MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED):
        with suppress(RemoteError):
            guest.memory.advise(advice, 0, PRESENT)
    assert guest.memory.allocated() == [(0, PRESENT // PAGE)]
    guest.memory.verify(seed=seed, length=PRESENT)

    session, guest = retrieve(host.live_update())

    guest.memory.settled([(0, PRESENT // PAGE)])
    guest.memory.verify(seed=seed, length=PRESENT)
    session.finish()


@pytest.mark.rules("F3")
def test_pages_stay_writable_up_to_the_kexec(host: Session, seed: int) -> None:
    """What host and guest write to pages that are there, after the preserve, comes through."""
    guest = half_full(host, seed)
    preserve(host, guest)
    half = PRESENT // 2
    guest.memory.fill(seed=seed + 1, length=half)
    guest.vcpu.fill(guest.memory, seed=seed + 1, offset=half, length=half)

    session, guest = retrieve(host.live_update())

    guest.memory.verify(seed=seed + 1, length=PRESENT, candidates=(seed,))
    guest.vcpu.verify(guest.memory, seed=seed + 1, length=PRESENT)
    session.finish()


@pytest.mark.rules("F4")
def test_closing_the_session_undoes_everything(host: Session, seed: int) -> None:
    """After a close memory can be allocated, punched and faulted, and a stopped vCPU goes on."""
    guest = half_full(host, seed)
    session = preserve(host, guest)
    stopped = guest.vcpu.touch(guest.memory, HOLE)
    assert (stopped.errno, stopped.reason) == (errno.EPERM, "memory_fault")

    session.close()

    resumed = guest.vcpu.resume()
    assert (resumed.errno, resumed.reason) == (0, "hlt")
    guest.memory.fallocate(HOLE + PAGE, PAGE)
    guest.memory.touch(HOLE + 2 * PAGE, store=True)
    guest.memory.punch_hole(0, PAGE)
    assert guest.memory.allocated() == [(1, PRESENT // PAGE - 1), (HOLE // PAGE, 3)]
    guest.memory.verify(seed=seed, offset=PAGE, length=PRESENT - PAGE)


@pytest.mark.rules("F4", "R4")
def test_undone_preserve_does_not_stand_in_the_way(host: Session, seed: int) -> None:
    """A guest that was preserved, released and changed can be preserved again, and comes through as it is."""
    guest = half_full(host, seed)
    preserve(host, guest, "first").close()
    guest.memory.fill(seed=seed + 1, offset=PRESENT, length=PRESENT)
    preserve(host, guest)

    session, guest = retrieve(host.live_update())

    guest.memory.verify(seed=seed, length=PRESENT)
    guest.memory.verify(seed=seed + 1, offset=PRESENT, length=PRESENT)
    session.finish()


@pytest.mark.rules("F5")
def test_preserve_and_close_cost_nothing(host: Session, seed: int) -> None:
    """Preserved and released five hundred times, a guest is what it was, and no memory is lost."""
    guest = half_full(host, seed)
    preserve(host, guest).close()
    free = host.memory_free()
    for _ in range(500):
        preserve(host, guest).close()
    # Less than a byte for each: nothing of the smallest size is forgotten each time.
    missing = host.memory_returned(free, tolerance=256 * KiB)
    host.measure("memory_missing_bytes", missing)
    guest.memory.punch_hole(0, PAGE)
    guest.memory.verify(seed=seed, offset=PAGE, length=PRESENT - PAGE)


@pytest.mark.rules("F5")
def test_a_close_gives_the_vm_back(host: Session, seed: int) -> None:
    """What was preserved and released goes away with its last descriptor, all of it."""
    free = host.memory_free()
    for _ in range(8):
        guest = make_guest(host, 16 * MiB)
        guest.memory.fill(seed=seed)
        session = preserve(host, guest)
        for file in (guest.vcpu, guest.memory, guest.vm, session):
            file.close()
    host.memory_returned(free)


@pytest.mark.rules("F6")
@pytest.mark.parametrize("order", CLOSE_ORDERS)
def test_descriptors_are_closed_after_the_preserve(host: Session, seed: int, order: str) -> None:
    """Once it is preserved a guest needs no descriptor: whatever is closed, and when, it comes through."""
    guest = half_full(host, seed)
    preserve(host, guest)
    for name in order.split("-"):
        getattr(guest, name).close()

    session, guest = retrieve(host.live_update())

    guest.memory.settled([(0, PRESENT // PAGE)])
    guest.vcpu.verify(guest.memory, seed=seed, length=PRESENT)
    session.finish()


@pytest.mark.rules("F6")
def test_descriptors_are_closed_before_the_session(host: Session, seed: int) -> None:
    """In all orders, with the session closed at last, everything is given back."""
    free = host.memory_free()
    for order in CLOSE_ORDERS:
        guest = half_full(host, seed)
        session = preserve(host, guest)
        for name in order.split("-"):
            getattr(guest, name).close()
        session.close()
    host.memory_returned(free)


@pytest.mark.rules("F6", "P1")
def test_only_a_vcpu_holds_the_vm(host: Session, seed: int) -> None:
    """A VM whose own descriptor is closed lives by its vCPU, and its memory can go with no other VM."""
    guest = half_full(host, seed)
    guest.vm.close()
    session = host.liveupdate.create_session("vm0")
    session.preserve(guest.memory, token=2)
    with raises_errno(errno.EBADF):
        session.preserve(guest.vm, token=1)
    guest.vcpu.verify(guest.memory, seed=seed, length=PRESENT)
    host.kexec.load()
    with raises_errno(errno.ENOENT):
        host.kexec.reboot()
    session.close()
    assert guest.vcpu.touch(guest.memory, HOLE).reason == "hlt"


@pytest.mark.rules("F6")
def test_memory_is_unbound_and_bound_while_frozen(host: Session, seed: int) -> None:
    """Memslots of frozen memory can be deleted and made again; the guest finds its pages, and no more."""
    guest = half_full(host, seed)
    preserve(host, guest)
    guest.vm.unbind(0)
    assert guest.vcpu.run("touch", rdi=0, rsi=1, rdx=0, rax=0).reason == "mmio"
    assert guest.vcpu.resume().reason == "hlt"  # KVM ends an access to nowhere when the vCPU runs on
    guest.vm.bind(guest.memory, gpa=1 << 30, slot=3)
    guest.vcpu.verify(guest.memory, seed=seed, length=PRESENT)
    end = guest.vcpu.touch(guest.memory, HOLE)
    assert (end.errno, end.fault_gpa) == (errno.EPERM, (1 << 30) + HOLE)

    session, guest = retrieve(host.live_update())

    guest.vcpu.verify(guest.memory, seed=seed, length=PRESENT)
    session.finish()


@pytest.mark.rules("F7", "P3")
def test_frozen_memory_is_not_converted(host: Session, seed: int) -> None:
    """No part of frozen memory can become private: its VM has no attributes, frozen or not."""
    guest = half_full(host, seed)
    with raises_errno(errno.EINVAL, errno.ENOTTY):
        guest.vm.set_memory_attributes(0, PAGE, attributes=PRIVATE)
    preserve(host, guest)
    with raises_errno(errno.EINVAL, errno.ENOTTY):
        guest.vm.set_memory_attributes(0, PAGE, attributes=PRIVATE)
    guest.memory.verify(seed=seed, length=PRESENT)
