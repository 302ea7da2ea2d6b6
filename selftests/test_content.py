# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in the memory: page by page, hole by hole, to the last byte, seen by the host and by the guest.

At stake: a guest's memory is not one pattern. It has pages that were never touched, pages that were given
back and touched again, pages that differ in a bit, and a last page. Each kind has its own way to be lost.
"""

from __future__ import annotations

import random

import pytest

from harness.case import MiB
from harness.guest.errors import MemoryDiffers
from harness.guest.resources import GuestMemfd
from harness.guest.session import Session
from selftests.vms import MEMORY, PAGE, VM, make_guest, preserve, preserve_files, retrieve, start_guest

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

SIZE = 8 * MiB
STEPS = 200
LONGEST = 64


class Model:
    """What each page of a memory should hold: the seed of its pattern, 0 for zeroes; holes are not in it."""

    def __init__(self, memory: GuestMemfd, choose: random.Random) -> None:
        self.memory = memory
        self.pages: dict[int, int] = {}
        self._choose = choose

    def step(self, seed: int) -> None:
        """Do one thing to a random range of pages, in the memory and here."""
        first = self._choose.randrange(SIZE // PAGE)
        count = self._choose.randint(1, min(LONGEST, SIZE // PAGE - first))
        offset, length = first * PAGE, count * PAGE
        action = self._choose.choice(("fill", "fill", "allocate", "punch"))
        for page in range(first, first + count):
            if action == "fill":
                self.pages[page] = seed
            elif action == "allocate":
                self.pages.setdefault(page, 0)
            else:
                self.pages.pop(page, None)
        if action == "fill":
            self.memory.fill(seed=seed, offset=offset, length=length)
        elif action == "allocate":
            self.memory.fallocate(offset, length)
        else:
            self.memory.punch_hole(offset, length)

    def runs(self) -> list[tuple[int, int]]:
        """The pages that are there, as GuestMemfd.allocated() gives them."""
        return [(first, count) for first, count, _ in runs(dict.fromkeys(self.pages, 1))]

    def verify(self, memory: GuestMemfd) -> None:
        """The host looks at each page that is there."""
        for first, count, seed in runs(self.pages):
            offset, length = first * PAGE, count * PAGE
            if seed:
                memory.verify(seed=seed, offset=offset, length=length)
            else:
                memory.verify_zero(offset=offset, length=length)


def runs(pages: dict[int, int]) -> list[tuple[int, int, int]]:
    """(first, count, value) of neighbours that have one value."""
    found: list[tuple[int, int, int]] = []
    for page in sorted(pages):
        if found and sum(found[-1][:2]) == page and found[-1][2] == pages[page]:
            first, count, value = found[-1]
            found[-1] = (first, count + 1, value)
        else:
            found.append((page, 1, pages[page]))
    return found


@pytest.mark.rules("K3", "R3", "R4")
@pytest.mark.parametrize("variant", range(3))
def test_any_history_of_pages(host: Session, seed: int, variant: int) -> None:
    """Memory that was filled, allocated and punched at random, in two kernels, is what a model says."""
    guest = make_guest(host, SIZE)
    choose = random.Random(seed * 1000 + variant)
    model = Model(guest.memory, choose)
    for _ in range(2):
        for number in range(STEPS):
            model.step(seed=1 + number)
        model.verify(model.memory)
        preserve(host, guest)
        host = host.live_update()
        session, guest = retrieve(host)
        model.memory = guest.memory
        guest.memory.settled(model.runs())
        model.verify(guest.memory)
        for first, count, value in runs(model.pages)[:20]:
            if value:
                guest.vcpu.verify(guest.memory, seed=value, offset=first * PAGE, length=count * PAGE)
        session.finish()
        session.close()


@pytest.mark.rules("K3", "R3")
def test_restored_pages_are_changed_before_they_come(host: Session, seed: int) -> None:
    """In the first moment after the retrieve pages can be punched, written and allocated as the VMM likes."""
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    session = host.liveupdate.retrieve_session("vm0")
    memory = session.retrieve_guest_memfd(MEMORY)
    model = Model(memory, random.Random(seed))
    model.pages = dict.fromkeys(range(SIZE // PAGE), seed)
    for number in range(STEPS):
        model.step(seed=seed + 1 + number)
    memory.settled(model.runs())
    model.verify(memory)
    session.finish()


@pytest.mark.rules("K3", "R3")
def test_pages_that_nobody_touched(host: Session) -> None:
    """Allocated pages read as zeroes for the guest and for the host, whoever comes first."""
    guest = make_guest(host, SIZE)
    guest.memory.fallocate(0, SIZE)
    preserve(host, guest)

    session, guest = retrieve(host.live_update())

    half = SIZE // 2
    end = guest.vcpu.touch(guest.memory, 0, pages=half // PAGE)
    assert (end.reason, end.registers["rax"]) == ("hlt", 0)
    guest.memory.verify_zero()
    guest.memory.settled([(0, SIZE // PAGE)])
    session.finish()


@pytest.mark.rules("K3", "F3")
def test_last_page_and_single_bits(host: Session, seed: int) -> None:
    """Bytes written late to the edges of pages and to the very end of the memory are there, and no others."""
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    marks = (0, PAGE - 1, PAGE, 77 * PAGE + 2048, SIZE - PAGE, SIZE - 1)
    for at in marks:
        guest.memory.flip(at, mask=0x01)

    session, guest = retrieve(host.live_update())

    with pytest.raises(MemoryDiffers) as caught:
        guest.memory.verify(seed=seed)
    assert caught.value.pages == len({at // PAGE for at in marks})
    for at in marks:
        guest.memory.flip(at, mask=0x01)
    guest.memory.verify(seed=seed)
    guest.vcpu.verify(guest.memory, seed=seed)
    session.finish()


@pytest.mark.rules("K3", "K4")
def test_memory_behind_many_memslots(host: Session, seed: int) -> None:
    """Memory that a guest saw in pieces, at several addresses, comes back whole."""
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(SIZE, mmap=True, init_shared=True)
    for number in range(8):
        vm.bind(memory, gpa=(7 - number) << 30, slot=number, offset=number * MiB, length=1 * MiB)
    vcpu = vm.create_vcpu()
    for number in range(8):
        vcpu.fill(memory, seed=seed, offset=number * MiB, length=1 * MiB)
    preserve_files(host, {VM: vm, MEMORY: memory})

    host = host.live_update()

    session = host.liveupdate.retrieve_session("vm0")
    guest = start_guest(session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY))
    guest.vcpu.verify(guest.memory, seed=seed)
    session.finish()
