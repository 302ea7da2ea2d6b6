# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest and its VMM do not stand still while the host prepares to go, and not while it goes.

At stake: an update takes a moment, and a running guest writes to its memory in that moment. Whatever the
guest was told is stored has to be there afterwards; whatever was written down about its pages before is out
of date. Here writers run on other CPUs until the old kernel stops them, and say in the memory itself how far
they came: all of that has to arrive.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial

import pytest

from harness.case import MiB
from harness.guest.errors import MemoryDiffers, RemoteError, raises_errno
from harness.guest.resources import GuestMemfd
from harness.guest.session import Session
from selftests.vms import MEMORY, PAGE, SIZE, Guest, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

MARCH = 64 * MiB
# The first page has the counter; all from here on are marched over.
FIRST = 1
COUNT = MARCH // PAGE - FIRST
# How far apart two of the guest's stores are, so that the march outlasts the old kernel.
PAUSES = 100
SECONDS = 5.0
VALUE = 1 << 40


def allocated_guest(host: Session) -> Guest:
    """A guest with memory that is there as a whole and that nobody ever wrote to, but for the counter."""
    guest = make_guest(host, MARCH)
    guest.memory.fallocate(0, MARCH)
    guest.memory.write(0, bytes(8))
    return guest


def wait_for_the_march(host: Session, memory: GuestMemfd) -> None:
    """Go on when the writer is on its way."""
    deadline = host.deadline(SECONDS, "the first page that is written")
    while not memory.words(0, 1)[0]:
        deadline.check()


def marched(host: Session, memory: GuestMemfd) -> int:
    """How many pages were written before the counter said so; the march must not have been over."""
    (count,) = memory.words(0, 1)
    host.measure("marched_pages", count)
    assert 0 < count < COUNT, "the writer did not run while the kernel went"
    return count


@pytest.mark.rules("F3")
@pytest.mark.parametrize("by_read", [False, True], ids=["store", "read"])
def test_host_writes_while_the_kernel_goes(host: Session, seed: int, by_read: bool) -> None:
    """First writes of another process, by a store or by read(2), arrive until the CPU is stopped."""
    guest = allocated_guest(host)
    child = host.spawn()
    writer = child.take(guest.memory)
    writer.touch(0)
    preserve(host, guest)
    host.kexec.load()
    child.begin("race.march", memory=writer, first=FIRST, count=COUNT, counter=0, seed=seed, by_read=by_read)
    wait_for_the_march(host, guest.memory)

    session, guest = retrieve(host.kexec.reboot())

    count = marched(host, guest.memory)
    guest.memory.verify(seed=seed, offset=FIRST * PAGE, length=count * PAGE)
    rest = (FIRST + count + 1) * PAGE
    guest.memory.verify_zero(offset=rest, length=MARCH - rest)
    session.finish()


@pytest.mark.rules("F3")
@pytest.mark.parametrize("attempt", range(3))
def test_guest_writes_while_the_kernel_goes(host: Session, attempt: int) -> None:
    """First writes of the guest, on a vCPU that is never told, arrive until the CPU is stopped."""
    guest = allocated_guest(host)
    preserve(host, guest)
    host.kexec.load()
    registers = {"rdi": FIRST * PAGE, "rsi": COUNT, "rdx": 0, "rcx": PAUSES, "rax": VALUE + attempt}
    guest.vcpu.start("march", **registers)
    wait_for_the_march(host, guest.memory)

    session, guest = retrieve(host.kexec.reboot())

    count = marched(host, guest.memory)
    words = guest.memory.words(FIRST * PAGE, min(count, COUNT))
    assert words == [VALUE + attempt + number for number in range(count)]
    rest = (FIRST + count + 1) * PAGE
    guest.memory.verify_zero(offset=rest, length=MARCH - rest)
    session.finish()


@pytest.mark.rules("F3", "P8")
def test_guest_writes_while_it_is_preserved(host: Session) -> None:
    """A vCPU that runs through the preserve, the close and the next preserve loses no write."""
    guest = allocated_guest(host)
    guest.vcpu.start("march", rdi=FIRST * PAGE, rsi=COUNT, rdx=0, rcx=PAUSES, rax=VALUE)
    for _ in range(5):
        preserve(host, guest).close()
    preserve(host, guest)
    guest.vcpu.stop()
    (count,) = guest.memory.words(0, 1)
    assert count

    session, guest = retrieve(host.live_update())

    assert guest.memory.words(0, 1) == [count]
    assert guest.memory.words(FIRST * PAGE, count) == [VALUE + number for number in range(count)]
    session.finish()


@pytest.mark.rules("F1", "F2", "F5")
def test_shape_is_fought_over(host: Session, seed: int) -> None:
    """fallocate and PUNCH_HOLE of other processes, in a race with preserves and closes, do no harm."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    children = [host.spawn() for _ in range(2)]
    files = [child.take(guest.memory) for child in children]
    seconds = 2.0 * host.time_scale / 5
    pending = [
        child.begin("race.churn", file=file, offset=2 * MiB, length=64 * PAGE, seconds=seconds)
        for child, file in zip(children, files, strict=True)
    ]
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end:
        session = preserve(host, guest)
        shape = guest.memory.allocated()
        assert guest.memory.allocated() == shape, "the shape changed while it was frozen"
        session.close()
    session = preserve(host, guest)
    shape = guest.memory.allocated()
    counts = [one.result(60) for one in pending]
    assert all(count["done"] and count["refused"] for count in counts), counts
    assert guest.memory.allocated() == shape

    session, guest = retrieve(host.live_update())

    guest.memory.settled(shape)
    guest.memory.verify(seed=seed, length=1 * MiB)
    session.finish()


@pytest.mark.rules("F2", "K3")
def test_holes_are_touched_while_the_memory_freezes(host: Session) -> None:
    """Another process that touches hole after hole is stopped at one page, and all before it arrive."""
    guest = make_guest(host, MARCH)
    guest.memory.fallocate(0, PAGE)
    child = host.spawn()
    memory = child.take(guest.memory)
    memory.touch(0)
    pending = child.begin("memory.touch", memory=memory, offset=0, length=MARCH, store=True)
    preserve(host, guest)
    shape = guest.memory.allocated()
    with raises_errno(errno.EFAULT):
        pending.result(60)
    ((first, count),) = guest.memory.allocated()
    assert [(first, count)] == shape
    host.measure("touched_pages", count)

    session, guest = retrieve(host.live_update())

    guest.memory.settled(shape)
    guest.memory.verify_zero(length=count * PAGE)
    session.finish()


@pytest.mark.rules("R3", "R4")
def test_restored_memory_is_fought_over_while_it_comes(host: Session, seed: int) -> None:
    """Faults of the guest and of a process, punches and allocations, all at once: each page is its own."""
    guest = make_guest(host, MARCH)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    free = host.memory_free()
    child, other = host.spawn(), host.spawn()
    half, end = MARCH // 2, MARCH - 1 * MiB

    session, guest = retrieve(host)
    taken, too = child.take(guest.memory), other.take(guest.memory)
    seconds = 1.0 * host.time_scale / 5
    punches = child.begin("race.churn", file=taken, offset=end, length=1 * MiB, seconds=seconds)
    touches = other.begin("memory.touch", memory=too, offset=0, length=half, store=True)
    guest.vcpu.verify(guest.memory, seed=seed, offset=0, length=half)

    touches.result(60)
    assert punches.result(60)["refused"] == 0
    guest.memory.verify(seed=seed, length=end)
    guest.memory.verify_zero(offset=end)
    session.finish()
    child.kill()
    other.kill()
    for file in (session, guest.vcpu, guest.memory, guest.vm):
        file.close()
    host.memory_returned(free + MARCH)


def errno_of(attempt: Callable[[], object]) -> int:
    """What it failed with, 0 if it did not."""
    try:
        attempt()
    except RemoteError as error:
        return error.errno
    return 0


@pytest.mark.rules("P5", "F5")
def test_two_sessions_want_one_file(host: Session, seed: int) -> None:
    """Of two processes that preserve the same memory at once one gets it; the other is told EBUSY."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    child = host.spawn()
    memory = child.take(guest.memory)
    free = host.memory_free()
    for number in range(20):
        mine = host.liveupdate.create_session(f"mine{number}")
        theirs = host.liveupdate.create_session(f"theirs{number}")
        taken = child.take(theirs)
        pending = child.begin("liveupdate.preserve", session=taken, file=memory, token=MEMORY)
        mine_too = partial(mine.preserve, guest.memory, token=MEMORY)
        attempts: tuple[Callable[[], object], ...] = (mine_too, pending.result)
        assert sorted(map(errno_of, attempts)) == [0, errno.EBUSY]
        for session in (mine, taken, theirs):
            session.close()
        guest.memory.fallocate(0, PAGE)
    host.memory_returned(free)


@pytest.mark.rules("F6", "F3")
def test_memslots_change_while_the_memory_is_frozen(host: Session, seed: int) -> None:
    """Memslots come and go on frozen memory while a vCPU writes through another one."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    guest.vm.unbind(0)
    guest.vm.bind(guest.memory, gpa=0, slot=0, length=1 * MiB)
    preserve(host, guest)
    guest.vcpu.start("count", rdi=0, rsi=0)
    for number in range(50):
        part = 1 + number % 3
        guest.vm.bind(guest.memory, gpa=1 << 32, slot=1, offset=part * MiB, length=1 * MiB)
        guest.vm.unbind(1)
    guest.vcpu.stop()
    counted = guest.memory.words(0, 1)

    session, guest = retrieve(host.live_update())

    assert guest.memory.words(0, 1) == counted
    guest.memory.verify(seed=seed, offset=PAGE)
    session.finish()


def test_a_lost_write_would_show(host: Session, seed: int) -> None:
    """The checks above fail where a page that was counted is not there: the last one is emptied."""
    guest = make_guest(host, SIZE)
    child = host.spawn()
    writer = child.take(guest.memory)
    assert (
        child.begin("race.march", memory=writer, first=FIRST, count=10, counter=0, seed=seed).result() == 10
    )
    guest.memory.drop_page(FIRST + 9)
    with pytest.raises(MemoryDiffers, match="page 10: all zeroes"):
        guest.memory.verify(seed=seed, offset=FIRST * PAGE, length=10 * PAGE)
