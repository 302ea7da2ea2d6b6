# SPDX-License-Identifier: GPL-2.0-or-later
"""Between the preserve and the kexec: the guest runs on, but its memory keeps its shape.

At stake: a page that appears after the kernel has written down which pages there are would be lost in the
update, and one that goes away would come back as somebody else's. So shape is refused to change, loudly,
while every page that is there goes on working; and an update that is called off leaves no trace.
"""

from __future__ import annotations

import errno

import pytest

from harness.case import MiB
from harness.guest.errors import raises_errno
from harness.guest.session import Session
from selftests.vms import PAGE, SIZE, Guest, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

# Pages below are there, pages from here on are holes.
PRESENT = 1 * MiB
HOLE = 2 * MiB
ODD_MODE, PUNCH = 0x40, 0x03


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
