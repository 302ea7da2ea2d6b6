# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of an update: what nobody fetched goes away, and what was fetched stays.

At stake: memory that a host does not get back is memory that it cannot sell, and after a few updates a host
that has to be emptied. And a fetch that fails must say so and fail alone, not take the host with it.
"""

from __future__ import annotations

import errno
import time

import pytest

from harness.case import MiB
from harness.guest.child import take
from harness.guest.errors import ProcessEnded, RemoteError, raises_errno
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
    retrieve,
    start_guest,
)

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

SIZE = 32 * MiB
LIMIT = 8 * MiB
# After which pages that nobody touched have come in, if they can.
WORKER_SECONDS = 2.0


def updated(host: Session, seed: int, size: int = SIZE) -> tuple[Session, int]:
    """The new kernel's session, in front of a guest that nobody has retrieved, and its free memory."""
    guest = make_guest(host, size)
    guest.memory.fill(seed=seed)
    preserve(host, guest)
    host = host.live_update()
    return host, host.memory_free()


@pytest.mark.rules("R5")
@pytest.mark.parametrize("by_close", [False, True], ids=["finish", "close"])
def test_nothing_is_retrieved(host: Session, seed: int, by_close: bool) -> None:
    """FINISH, or the close of the session, frees a guest that nobody wanted."""
    host, free = updated(host, seed)
    session = host.liveupdate.retrieve_session(NAME)
    if not by_close:
        session.finish()
        with raises_errno(errno.EINVAL, errno.ENOENT, errno.EBUSY):
            session.retrieve_guest_memfd(MEMORY)
    session.close()
    host.memory_returned(free + SIZE)


@pytest.mark.rules("R5", "R4")
def test_only_the_vm_is_retrieved(host: Session, seed: int) -> None:
    """The memory that was not retrieved is free after FINISH, and the VM is good for new memory."""
    host, free = updated(host, seed)
    session = host.liveupdate.retrieve_session(NAME)
    vm = session.retrieve_vm(VM)
    session.finish()
    host.memory_returned(free + SIZE)
    memory = vm.create_guest_memfd(4 * MiB, mmap=True, init_shared=True)
    guest = start_guest(vm, memory)
    guest.vcpu.fill(memory, seed=seed)
    memory.verify(seed=seed)
    for file in (guest.vcpu, memory, vm, session):
        file.close()
    host.memory_returned(free + SIZE)


@pytest.mark.rules("R5")
def test_only_the_memory_is_retrieved(host: Session, seed: int) -> None:
    """The memory lives on with a VM that has no descriptor, and ends with its own."""
    host, free = updated(host, seed)
    session = host.liveupdate.retrieve_session(NAME)
    memory = session.retrieve_guest_memfd(MEMORY)
    session.finish()
    session.close()
    memory.verify(seed=seed)
    memory.punch_hole(0, 1 * MiB)
    with raises_errno(errno.ENOENT):
        host.liveupdate.retrieve_session(NAME)
    memory.close()
    host.memory_returned(free + SIZE)


@pytest.mark.rules("R5", "R2")
def test_finish_is_final(host: Session, seed: int) -> None:
    """After FINISH a session gives nothing out, and what was retrieved before stays."""
    host, _ = updated(host, seed)
    session, guest = retrieve(host)
    session.finish()
    for token in (VM, MEMORY):
        with raises_errno(errno.EINVAL, errno.ENOENT, errno.EBUSY):
            session.retrieve(token)
    guest.memory.verify(seed=seed)


@pytest.mark.rules("R5", "R3")
@pytest.mark.parametrize("touched", [0, 1, 100], ids=str)
def test_memory_goes_while_it_still_comes(host: Session, seed: int, touched: int) -> None:
    """Memory that is closed, or punched, right after its retrieve is free, whatever of it had come in."""
    host, free = updated(host, seed)
    session = host.liveupdate.retrieve_session(NAME)
    memory = session.retrieve_guest_memfd(MEMORY)
    if touched:
        memory.touch(0, touched * PAGE)
    memory.punch_hole(2 * PAGE, SIZE // 2)
    memory.verify_zero(offset=2 * PAGE, length=64 * PAGE)
    memory.verify(seed=seed, length=2 * PAGE)
    memory.verify(seed=seed, offset=SIZE // 2 + 2 * PAGE, length=64 * PAGE)
    for file in (memory, session):
        file.close()
    host.memory_returned(free + SIZE)


@pytest.mark.rules("R9", "R5")
def test_retriever_is_over_its_limit(host: Session, seed: int) -> None:
    """A retriever that may not have so much memory is refused or killed; nothing else is lost."""
    host, free = updated(host, seed)
    child = confined(host, LIMIT)
    try:
        session = child.liveupdate.retrieve_session(NAME)
        session.retrieve_guest_memfd(MEMORY).touch(0, SIZE)
    except ProcessEnded:
        ended = "killed"
    except RemoteError as error:
        assert error.errno in (errno.ENOMEM, errno.EFAULT), error.message
        ended = "refused"
        child.kill()
    else:
        pytest.fail("a process had four times the memory that it may have")
    assert "oom_kill 0\n" not in host.files.text(f"{GROUP}/memory.events") or ended == "refused"
    host.memory_returned(free + SIZE)
    host.files.rmdir(GROUP)
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    guest.memory.verify(seed=seed)


@pytest.mark.rules("R9", "R8")
def test_limit_is_raised_in_time(host: Session, seed: int) -> None:
    """Pages that find no room in the control group that retrieved them come in when there is some."""
    host, _ = updated(host, seed)
    child = confined(host, LIMIT)
    session = child.liveupdate.retrieve_session(NAME)
    memory = session.retrieve_guest_memfd(MEMORY)
    # The process leaves before it needs memory of its own; what it retrieved stays charged to the group.
    host.files.put_text(f"{CGROUPS}/cgroup.procs", str(child.identity.agent_pid))
    time.sleep(WORKER_SECONDS * host.time_scale / 5)
    assert sum(count for _, count in memory.allocated()) <= LIMIT // PAGE
    host.files.put_text(f"{GROUP}/memory.max", "max")
    memory.settled([(0, SIZE // PAGE)])
    memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("R8", "R4")
def test_who_is_charged_is_gone_before_the_pages_come(host: Session, seed: int) -> None:
    """The control group that retrieved is removed at once, with its process; all comes in."""
    host, free = updated(host, seed)
    child = confined(host, 2 * SIZE)
    session = child.liveupdate.retrieve_session(NAME)
    memory, vm = take(host, session.retrieve_guest_memfd(MEMORY)), take(host, session.retrieve_vm(VM))
    child.kill()
    host.files.rmdir(GROUP)
    memory.settled([(0, SIZE // PAGE)])
    memory.verify(seed=seed)
    for file in (memory, vm):
        file.close()
    host.memory_returned(free + SIZE)


@pytest.mark.rules("R4", "R8")
def test_next_update_at_once(host: Session, seed: int) -> None:
    """Memory that nobody has touched since its retrieve goes on through three more updates, page for page."""
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed, length=SIZE // 2)
    for _ in range(4):
        preserve(host, guest)
        host = host.live_update()
        session = host.liveupdate.retrieve_session(NAME)
        vm, memory = session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY)
        session.finish()
        session.close()
        guest = Guest(vm, memory, vm.create_vcpu())
    memory.settled([(0, SIZE // 2 // PAGE)])
    memory.verify(seed=seed, length=SIZE // 2)
    vm.bind(memory, gpa=0, slot=0)
    guest.vcpu.verify(memory, seed=seed, length=SIZE // 2)


@pytest.mark.rules("R4", "P5", "F5")
def test_preserved_before_it_has_come(host: Session, seed: int) -> None:
    """Preserved and closed while pages still come, none is lost; before FINISH it is EBUSY."""
    host, free = updated(host, seed)
    session, guest = retrieve(host)
    following = host.liveupdate.create_session("next")
    for incoming in (guest.vm, guest.memory):
        with raises_errno(errno.EBUSY):
            following.preserve(incoming, token=1)
    following.close()
    session.finish()
    for number in range(10):
        guest.memory.punch_hole(number * MiB, PAGE)
        preserve(host, guest, "next").close()
    for number in range(10):
        guest.memory.fill(seed=seed, offset=number * MiB, length=PAGE)
    guest.memory.verify(seed=seed)
    for file in (session, guest.vcpu, guest.memory, guest.vm):
        file.close()
    host.memory_returned(free + SIZE)
