# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation on the way fails once: nothing is lost, nothing stays behind, nothing crashes.

At stake: a host is updated because it has run for a year, and its memory is full. Each of these paths runs
rarely and each of its error paths never, until that day. So allocation by allocation is made to fail, the
first, the second, until an operation has none left that could.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from harness.case import KiB, MiB
from harness.deadline import Deadline
from harness.guest.errors import RemoteError, raises_errno
from harness.guest.faults import Attempt, Faults
from harness.guest.resources import File, GuestMemfd, LiveUpdateSession, Vm
from harness.guest.session import Session
from selftests.vms import (
    CGROUPS,
    GROUP,
    MEMORY,
    NAME,
    PAGE,
    VM,
    Guest,
    confined,
    make_guest,
    preserve,
    preserve_files,
    start_guest,
)

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd", "fault_injection")

SIZE = 4 * MiB
# More allocations than any of the operations makes; reaching it means that the scenario is wrong.
MANY = 1000
# Runs of a whole series of failures. One page that each failure lost would be seen after so many.
ROUNDS = 32
TOLERANCE = 256 * KiB
PATIENCE = 60.0
FOR_EVER = 1_000_000


def until_none_is_hit(attempt: Callable[[int], Attempt]) -> int:
    """Have the first allocation fail, the second, ... ; returns how many there were."""
    for nth in range(1, MANY):
        if not attempt(nth).hit:
            return nth - 1
    pytest.fail(f"there is no end to the allocations after {MANY}")


def out_of_memory(attempt: Attempt) -> bool:
    """Whether the operation failed; then it has to be with ENOMEM, and because of the allocation."""
    assert attempt.errno in (0, errno.ENOMEM)
    assert attempt.hit or not attempt.errno
    return bool(attempt.errno)


def with_holes(host: Session, seed: int) -> Guest:
    """A guest of whose memory every second page is there: many runs, so several blocks of metadata."""
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    for page in range(1, SIZE // PAGE, 2):
        guest.memory.drop_page(page)
    return guest


def is_as_before(guest: Guest, seed: int) -> None:
    """Neither frozen nor damaged: a hole can be filled and made again, by host and guest."""
    guest.memory.fallocate(PAGE, PAGE)
    guest.memory.punch_hole(PAGE, PAGE)
    end = guest.vcpu.touch(guest.memory, 3 * PAGE)
    assert (end.errno, end.reason) == (0, "hlt")
    guest.memory.drop_page(3)
    for page in (0, 2, SIZE // PAGE - 2):
        guest.memory.verify(seed=seed, offset=page * PAGE, length=PAGE)


# ---- the outgoing side ------------------------------------------------------------------------


@pytest.mark.rules("P7", "F4", "F5", "H2")
@pytest.mark.lane("long")
@pytest.mark.parametrize("kind", ["vm", "memory"])
def test_failing_preserve_leaves_no_trace(host: Session, seed: int, kind: str) -> None:
    """A preserve that runs out of memory says so, whichever allocation failed, and takes nothing with it."""
    guest = with_holes(host, seed)
    file = guest.vm if kind == "vm" else guest.memory
    faults = Faults(host)

    def attempt(nth: int) -> Attempt:
        session = host.liveupdate.create_session(NAME)
        attempted = faults.call(nth, "liveupdate.preserve", session=session, file=file, token=MEMORY)
        if out_of_memory(attempted):
            # The token, the file and the session are as they were.
            is_as_before(guest, seed)
            session.preserve(file, token=MEMORY)
        session.close()
        return attempted

    def again(nth: int) -> Attempt:
        session = host.liveupdate.create_session(NAME)
        attempted = faults.call(nth, "liveupdate.preserve", session=session, file=file, token=MEMORY)
        session.close()
        return attempted

    points = until_none_is_hit(attempt)
    free = host.memory_free()
    for _ in range(ROUNDS):
        until_none_is_hit(again)
    missing = free - host.memory_free()
    host.measure("faults_injected", points * (ROUNDS + 1))
    host.measure("fault_points", points)
    host.measure("memory_missing_bytes", missing)
    assert points > 0
    assert missing <= TOLERANCE
    is_as_before(guest, seed)


@pytest.mark.rules("K1", "F4", "H2", "P7")
@pytest.mark.lane("long")
def test_failing_freeze_is_rolled_back(host: Session, seed: int) -> None:
    """A kexec that is refused for lack of memory changes nothing, and the next one takes everything along."""
    guest = with_holes(host, seed)
    preserve(host, guest)
    host.kexec.load()
    faults, injected = Faults(host), 0
    while isinstance(refused := faults.reboot(injected + 1), Attempt):
        injected += 1
        assert refused.hit and refused.errno == errno.ENOMEM
        assert host.kexec.loaded
        with raises_errno(errno.EPERM):
            guest.memory.fallocate(PAGE, PAGE)
        guest.memory.verify(seed=seed, length=PAGE)
    host.measure("faults_injected", injected)

    session = refused.liveupdate.retrieve_session(NAME)
    memory = session.retrieve_guest_memfd(MEMORY)
    for page in range(0, SIZE // PAGE, 32):
        memory.verify(seed=seed, offset=page * PAGE, length=PAGE)
    session.finish()


# ---- the incoming side ------------------------------------------------------------------------

SMALL = 4 * PAGE
# More allocations than a retrieve makes besides those of a VM.
MORE = 20
# So many retrieves go well first, with which those are compared that fail.
GO_WELL = 1_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """points: how many allocations failed. missing: the bytes that were lost, against as many good ones."""

    points: int
    missing: int


def compare(host: Session, count: int, attempt: Callable[[LiveUpdateSession, int], Attempt]) -> Comparison:
    """As until_none_is_hit, but each time in a session of its own: a retrieve that failed fails for ever.

    `count` sessions go well, and as many get failures. What they give back of what was preserved, metadata
    and all, has to be the same.
    """
    turns = iter(range(sessions_for(count)))

    def in_session(nth: int) -> Attempt:
        session = host.liveupdate.retrieve_session(str(next(turns)))
        attempted = attempt(session, nth)
        session.finish()
        session.close()
        return attempted

    def go_well(times: int) -> None:
        for _ in range(times):
            assert not in_session(GO_WELL).hit

    go_well(WARM_UP)
    before = host.memory_free()
    go_well(count)
    between = host.memory_free()
    points = until_none_is_hit(in_session)
    go_well(count - points - 1)
    after = host.memory_free()
    return Comparison(points, (between - before) - (after - between))


WARM_UP = 5


def sessions_for(count: int) -> int:
    return WARM_UP + 2 * count


def judge(host: Session, comparison: Comparison) -> None:
    host.measure("faults_injected", comparison.points)
    host.measure("memory_missing_bytes", comparison.missing)
    assert comparison.points > 0
    assert comparison.missing <= 4 * TOLERANCE


def points_of_a_vm(host: Session) -> int:
    """At most so many allocations are made by the retrieve of a VM: those for a new one, and some.

    Most are for its files in debugfs, one for each statistic. A kernel with checks makes many more.
    """
    made = Faults(host).call(GO_WELL, "kvm.create_vm", type=0)
    Vm(host, made.result["handle"]).close()
    return made.allocations + MORE


def preserve_and_close(host: Session, files: dict[int, File], name: str) -> None:
    """Only the session stays open, since there are more files than descriptors."""
    preserve_files(host, files, name)
    for file in files.values():
        file.close()


def retrieved(attempted: Attempt, again: Callable[[], int]) -> int | None:
    """The handle of the file; of one whose retrieve failed, by trying `again`.

    Failed in its handler, it fails likewise for ever; failed before, it comes.
    """
    if not out_of_memory(attempted):
        return int(attempted.result["handle"])
    try:
        return again()
    except RemoteError as error:
        assert error.errno == errno.ENOMEM
        return None


@pytest.mark.rules("R9", "R5", "H2")
@pytest.mark.lane("long")
def test_failing_retrieve_of_a_vm(host: Session) -> None:
    """A VM that cannot be restored for lack of memory says ENOMEM, and is gone for good after FINISH."""
    points = points_of_a_vm(host)
    for number in range(sessions_for(points)):
        preserve_and_close(host, {VM: host.kvm.create_vm()}, str(number))

    faults = Faults(host := host.live_update())

    def attempt(session: LiveUpdateSession, nth: int) -> Attempt:
        attempted = faults.call(nth, "liveupdate.retrieve", session=session, token=VM, kind="vm")
        handle = retrieved(attempted, lambda: session.retrieve_vm(VM).handle)
        if handle is not None:
            vm = Vm(host, handle)
            vm.create_guest_memfd(PAGE, mmap=True, init_shared=True).close()
            vm.close()
        return attempted

    judge(host, compare(host, points, attempt))


@pytest.mark.rules("R9", "R5", "H2")
@pytest.mark.lane("long")
@pytest.mark.parametrize(
    ("first", "size"),
    [pytest.param("vm", 4 * MiB, id="vm"), pytest.param("memory", 64 * KiB, id="memory")],
)
def test_failing_retrieve_of_memory(host: Session, seed: int, first: str, size: int) -> None:
    """Memory that cannot be restored says ENOMEM, also where it is its VM that cannot, and all comes free."""
    points = MORE if first == "vm" else points_of_a_vm(host) + MORE
    for number in range(sessions_for(points)):
        vm = host.kvm.create_vm()
        memory = vm.create_guest_memfd(size, mmap=True, init_shared=True)
        memory.fill(seed=seed, length=SMALL)
        memory.fallocate(0, size)
        preserve_and_close(host, {VM: vm, MEMORY: memory}, str(number))

    faults = Faults(host := host.live_update())

    def attempt(session: LiveUpdateSession, nth: int) -> Attempt:
        vm = session.retrieve_vm(VM) if first == "vm" else None
        attempted = faults.call(nth, "liveupdate.retrieve", session=session, token=MEMORY)
        handle = retrieved(attempted, lambda: session.retrieve_guest_memfd(MEMORY).handle)
        if handle is not None:
            memory = GuestMemfd(host, handle)
            vm = vm or session.retrieve_vm(VM)
            guest = start_guest(vm, memory)
            guest.vcpu.verify(memory, seed=seed, length=SMALL)
            guest.vcpu.close()
            memory.close()
        if vm:
            vm.close()
        return attempted

    judge(host, compare(host, points, attempt))


@pytest.mark.rules("R9", "H1", "H2")
@pytest.mark.lane("long")
@pytest.mark.parametrize(
    ("token", "there"),
    [(VM, ()), (MEMORY, ()), (MEMORY, (VM,))],
    ids=["vm", "memory", "memory-after-vm"],
)
def test_retrieve_that_cannot_be_tracked(
    host: Session, seed: int, token: int, there: tuple[int, ...]
) -> None:
    """Where there is no memory to remember what is retrieved, the retrieve fails as any other does.

    The allocation is tried twice, without waiting and with, so that no single failure reaches this.
    """
    guest = with_holes(host, seed)
    preserve(host, guest)

    faults = Faults(host := host.live_update())
    free = host.memory_free()

    session = host.liveupdate.retrieve_session(NAME)
    files = [session.retrieve(token) for token in there]
    faults.fail_below("__xa_insert", FOR_EVER, kernel=False)
    with raises_errno(errno.ENOMEM):
        session.retrieve(token)
    injected = FOR_EVER - faults.failures_left
    faults.fail_below("__xa_insert", 0)
    with raises_errno(errno.ENOMEM):
        session.retrieve(token)
    session.finish()
    for file in (session, *files):
        file.close()
    host.measure("faults_injected", injected)
    missing = free + SIZE // 2 - host.memory_free()
    host.measure("memory_missing_bytes", missing)
    assert missing <= 4 * TOLERANCE


# ---- memory that has yet to come ---------------------------------------------------------------

# What adds a page to a page cache. While it fails for the kernel's worker, restored pages come in by faults
# alone; the worker tries again every second.
ADD_PAGE = "filemap_add_folio"
# One node of a page cache's index has so many pages.
NODE = 64 * PAGE
# One of the host's page tables maps so many.
TABLE = 512 * PAGE
LARGE = 64 * MiB


def to_come(host: Session, memory: GuestMemfd) -> int:
    """How many pages have not entered the page cache."""
    return memory.size // PAGE - sum(pages for _, pages in memory.allocated())


class Held:
    """Memory of a retrieved guest that is still to come, because the worker cannot bring it in."""

    def __init__(self, host: Session, seed: int) -> None:
        guest = make_guest(host, LARGE)
        guest.memory.fill(seed=seed)
        preserve(host, guest)
        self.host = host = host.live_update()
        self.faults = Faults(host)
        self.free = host.memory_free()
        self.session = host.liveupdate.retrieve_session(NAME)
        self.vm = self.session.retrieve_vm(VM)
        host.files.memfd(PAGE).touch(0)  # the agent's bounce buffer is not what is to fail
        self.hold()
        self.memory = self.session.retrieve_guest_memfd(MEMORY)
        # The first page needs no node of the index.
        assert to_come(host, self.memory) >= LARGE // PAGE - 1

    def hold(self, times: int = FOR_EVER) -> None:
        self.faults.fail_below(ADD_PAGE, times)

    def let_go(self) -> None:
        """The worker goes on within a second."""
        self.faults.fail_below(ADD_PAGE, 0)

    def end(self) -> None:
        """Everything is closed, and everything comes free."""
        self.session.finish()
        self.session.close()
        self.vm.close()
        self.memory.close()
        missing = self.free + LARGE - self.host.memory_free()
        self.host.measure("memory_missing_bytes", missing)
        assert missing <= 4 * TOLERANCE


@pytest.mark.rules("R9", "R4", "H2")
@pytest.mark.lane("long")
def test_failing_fault_loses_no_page(host: Session, seed: int) -> None:
    """A touch of a restored page that finds no memory fails, and the same touch works when there is some."""
    held = Held(host, seed)
    last = LARGE // PAGE - 1
    places = (LARGE - number * TABLE for number in count(1))

    def attempt(nth: int) -> Attempt:
        at = next(places)
        attempted = held.faults.call(
            nth, "memory.touch", memory=held.memory, offset=at, length=PAGE, store=True
        )
        assert attempted.errno in ((0, errno.EFAULT) if attempted.hit else (0,))
        return attempted

    points = until_none_is_hit(attempt)
    held.host.measure("faults_injected", points)
    assert points > 0
    held.let_go()
    held.memory.verify(seed=seed)
    assert held.memory.allocated() == [(0, last + 1)]
    held.end()


@pytest.mark.rules("R9", "R4", "H2")
@pytest.mark.lane("long")
@pytest.mark.parametrize("by", ["run", "pre_fault"])
def test_failing_fault_of_the_guest_loses_no_page(host: Session, seed: int, by: str) -> None:
    """KVM_RUN and KVM_PRE_FAULT_MEMORY that find no memory for a restored page say so, and then work."""
    held = Held(host, seed)
    guest = start_guest(held.vm, held.memory)
    guest.vcpu.touch(held.memory, 0)  # its program is in the agent from now on, and not to be read
    places = (LARGE - number * NODE for number in count(1))

    def attempt(nth: int) -> Attempt:
        at = next(places)
        if by == "run":
            registers = {"rdi": at, "rsi": 1}
            attempted = held.faults.call(
                nth, "vcpu.run_here", vcpu=guest.vcpu, payload="touch", registers=registers
            )
            failed = attempted.errno or attempted.result["errno"]
        else:
            attempted = held.faults.call(nth, "vcpu.pre_fault", vcpu=guest.vcpu, gpa=at, size=PAGE)
            failed = attempted.errno
        assert failed in ((0, errno.ENOMEM, errno.EFAULT) if attempted.hit else (0,))
        if failed:
            again = guest.vcpu.touch(held.memory, at)
            assert (again.errno, again.reason) == (0, "hlt")
        return attempted

    points = until_none_is_hit(attempt)
    held.host.measure("faults_injected", points)
    assert points > 0
    held.let_go()
    guest.vcpu.verify(held.memory, seed=seed)
    assert held.memory.allocated() == [(0, LARGE // PAGE)]
    guest.vcpu.close()
    held.end()


@pytest.mark.rules("R9", "R4", "H2")
@pytest.mark.lane("long")
def test_failing_punch_loses_no_page(host: Session, seed: int) -> None:
    """A punch among pages that are still to come fails whole or works whole."""
    held = Held(host, seed)
    held.let_go()  # from now on allocations fail everywhere, not in one function; the worker sleeps
    at = LARGE - NODE
    points = until_none_is_hit(
        lambda nth: held.faults.call(nth, "files.punch_hole", file=held.memory, offset=at, length=NODE)
    )
    held.host.measure("faults_injected", points)
    held.memory.verify_zero(offset=at, length=NODE)
    held.memory.verify(seed=seed, length=at)
    held.end()


@pytest.mark.rules("R9", "R4", "P7", "H2")
@pytest.mark.lane("long")
def test_failing_preserve_of_what_has_not_come(host: Session, seed: int) -> None:
    """The next preserve, which has to wait for all pages, can fail in the middle and be repeated."""
    held = Held(host, seed)
    held.session.finish()
    injected = 0
    for nth in range(1, 40):
        held.let_go()
        session = held.host.liveupdate.create_session("next")
        attempted = held.faults.call(
            nth, "liveupdate.preserve", session=session, file=held.memory, token=MEMORY
        )
        held.hold()
        injected += attempted.hit
        out_of_memory(attempted)
        session.close()
    held.let_go()
    held.host.measure("faults_injected", injected)
    held.memory.verify(seed=seed)
    held.memory.fallocate(0, PAGE)
    preserve_files(held.host, {VM: held.vm, MEMORY: held.memory}, "last").close()
    held.end()


@pytest.mark.rules("R9", "R4", "H2")
@pytest.mark.lane("long")
def test_worker_does_not_give_up(host: Session, seed: int) -> None:
    """Pages come in by themselves as soon as there is memory for them again."""
    held = Held(host, seed)
    held.hold(times=3)
    deadline = held.host.deadline(PATIENCE, "the worker brings in all pages")
    while to_come(held.host, held.memory):
        deadline.check()
    assert held.faults.failures_left == 0
    held.host.measure("faults_injected", 3)
    held.memory.verify(seed=seed)
    held.end()


@pytest.mark.rules("R5", "R9", "H2")
@pytest.mark.lane("long")
def test_closing_frees_what_has_not_come(host: Session, seed: int) -> None:
    """Memory whose pages never could come in is freed with its last descriptor."""
    held = Held(host, seed)
    held.end()


# ---- charges -----------------------------------------------------------------------------------

LIMIT = 8 * MiB
# The worker tries again after a second (KVM_GMEM_RESTORED_DELAY), and each try is over in far less.
BETWEEN_TRIES = 0.2


def charges_refused(host: Session) -> int:
    """How often the control group that retrieved was full: many times for a single charge that fails."""
    lines = host.files.text(f"{GROUP}/memory.events").splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}["max"]


def charges_refused_before(host: Session, deadline: Deadline) -> int:
    """The same once no try of the worker is under way."""
    found, before = charges_refused(host), -1
    while found != before:
        deadline.check()
        time.sleep(BETWEEN_TRIES)
        found, before = charges_refused(host), found
    return found


def fill(host: Session, child: Session, memory: GuestMemfd, deadline: Deadline) -> None:
    """Wait until the worker is refused the first page of a try.

    A charge that fails has the kernel take back what CPUs hold in advance for the group, in its own time
    (drain_all_stock()), so that there is room again after a try that brought in some pages.
    """
    brought = True
    while brought:
        refused, waiting = charges_refused_before(host, deadline), to_come(child, memory)
        while charges_refused_before(host, deadline) == refused:
            pass
        brought = to_come(child, memory) != waiting


@pytest.mark.rules("R9", "R8", "R4", "P7", "H2")
@pytest.mark.lane("long")
def test_failing_charge_loses_no_page(host: Session, seed: int) -> None:
    """Who touches or preserves a page that its control group has no room for is told so; the page waits."""
    guest = make_guest(host, LARGE)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    child = confined(host, LIMIT)
    session = child.liveupdate.retrieve_session(NAME)
    vm, memory = session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY)
    # The process leaves before it needs memory of its own; what it retrieved stays charged to the group.
    host.files.put_text(f"{CGROUPS}/cgroup.procs", str(child.identity.agent_pid))
    guest = start_guest(vm, memory)
    fill(host, child, memory, host.deadline(PATIENCE, "the worker fills the control group"))

    last = LARGE - PAGE
    with raises_errno(errno.EFAULT):
        memory.touch(last)
    assert guest.vcpu.touch(memory, last).errno in (errno.ENOMEM, errno.EFAULT)
    with raises_errno(errno.ENOMEM, errno.EFAULT):
        guest.vcpu.pre_fault(last, PAGE)
    session.finish()
    following = child.liveupdate.create_session("next")
    with raises_errno(errno.ENOMEM):
        following.preserve(memory, token=MEMORY)
    memory.punch_hole(0, PAGE)
    memory.verify_zero(length=PAGE)
    assert to_come(child, memory) > 0

    host.measure("faults_injected", charges_refused(host))
    host.files.put_text(f"{GROUP}/memory.max", "max")
    memory.settled([(0, LARGE // PAGE)])
    guest.vcpu.verify(memory, seed=seed, offset=PAGE)
    following.preserve(vm, token=VM)
    following.preserve(memory, token=MEMORY)
