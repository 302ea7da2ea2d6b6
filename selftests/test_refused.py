# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session must not take, and what a refusal leaves behind: nothing.

At stake: the program that prepares the update of a host hands over descriptors by the hundred, and some of
them will be wrong ones. A wrong one that is taken is found when it is too late; a wrong one that is refused
must cost neither its file nor the guests that are already in the session.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from harness.case import MiB
from harness.guest.errors import ProcessEnded, RemoteError, raises_errno
from harness.guest.resources import File, Memfd
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, PAGE, VM, make_guest, preserve, preserve_files, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

# include/uapi/asm-generic/fcntl.h and errno.h
O_PATH = 0o10000000
EHWPOISON = 133
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

OTHER_FILES: dict[str, Callable[[Session], File]] = {
    "null": lambda host: host.files.open("/dev/null"),
    "zero": lambda host: host.files.open("/dev/zero"),
    "kvm": lambda host: host.files.open("/dev/kvm"),
    "liveupdate": lambda host: host.liveupdate.device,
    "session": lambda host: host.liveupdate.create_session("as-a-file"),
    "vcpu": lambda host: host.kvm.create_vm().create_vcpu(),
    "vm-statistics": lambda host: host.kvm.create_vm().stats(),
    "vcpu-statistics": lambda host: host.kvm.create_vm().create_vcpu().stats(),
    "pipe": lambda host: host.files.pipe()[0],
    "socket": lambda host: host.files.socketpair()[0],
    "epoll": lambda host: host.files.epoll(),
    "eventfd": lambda host: host.files.eventfd(),
    "directory": lambda host: host.files.open("/tmp", DIRECTORY),
    "tmpfs": lambda host: host.files.open("/tmp/linked", os.O_RDWR | os.O_CREAT),
    "proc": lambda host: host.files.open("/proc/self/mem", os.O_RDONLY),
    "erofs": lambda host: host.files.open("/init", os.O_RDONLY),
}


@pytest.mark.rules("P4")
def test_other_files_are_not_taken(host: Session, seed: int) -> None:
    """No other file is claimed by a handler; each refusal leaves the session and its guest as they were."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    session = preserve(host, guest)
    for number, (name, make) in enumerate(OTHER_FILES.items()):
        try:
            session.preserve(make(host), token=100 + number)
        except RemoteError as error:
            assert error.errno == errno.ENOENT, f"{name}: {error.message}"
        else:
            pytest.fail(f"{name} was taken")

    session, guest = retrieve(host.live_update())

    guest.memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("P4", "P5")
def test_descriptors_that_are_no_open_file(host: Session) -> None:
    """An O_PATH descriptor, a closed one and numbers that never were one give EBADF."""
    session = host.liveupdate.create_session(NAME)
    with raises_errno(errno.EBADF):
        session.preserve(host.files.open("/dev/null", O_PATH), token=1)
    vm = host.kvm.create_vm()
    vm.close()
    with raises_errno(errno.EBADF):
        session.preserve(vm, token=1)
    session.preserve(host.kvm.create_vm(), token=1)


@pytest.mark.needs("preserve_memfd")
@pytest.mark.rules("P4")
def test_memory_files_go_to_their_own_handler(host: Session, seed: int) -> None:
    """A memfd and an unlinked file on tmpfs come through beside a guest, each as what it is."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    session = preserve(host, guest)
    unlinked = host.files.open("/tmp/unlinked", os.O_RDWR | os.O_CREAT)
    host.files.unlink("/tmp/unlinked")
    unlinked.truncate(1 * MiB)
    files = (host.files.memfd(1 * MiB), Memfd(host, unlinked.handle))
    for number, file in enumerate(files):
        file.fill(seed=seed + number)
        session.preserve(file, token=10 + number)

    session, guest = retrieve(host.live_update())

    for number in range(len(files)):
        session.retrieve_memfd(10 + number).verify(seed=seed + number)
    guest.memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("P5")
def test_tokens_and_files_are_used_once(host: Session, seed: int) -> None:
    """A token used twice is EEXIST, a file preserved twice is EBUSY, by whatever descriptor and session."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    session = preserve(host, guest)
    other = host.liveupdate.create_session("other")
    for file in (host.kvm.create_vm(), guest.vm, guest.memory):
        with raises_errno(errno.EEXIST):
            session.preserve(file, token=VM)
    for file in (guest.vm, guest.memory):
        for target in (session, other):
            with raises_errno(errno.EBUSY):
                target.preserve(file, token=30)
            with raises_errno(errno.EBUSY):
                target.preserve(file.dup(), token=30)
    # The tokens that were refused are free.
    session.preserve(host.kvm.create_vm(), token=30)
    other.close()

    session, guest = retrieve(host.live_update())

    guest.memory.verify(seed=seed)
    session.finish()


@pytest.mark.rules("P5")
@pytest.mark.parametrize("token", [0, 1 << 32, (1 << 64) - 1])
def test_any_number_is_a_token(host: Session, token: int) -> None:
    """Tokens are 64 bits of the VMM's choice; none of them is special."""
    preserve_files(host, {token: host.kvm.create_vm()})

    session = (host := host.live_update()).liveupdate.retrieve_session(NAME)

    with raises_errno(errno.ENOENT):
        session.retrieve(token ^ 1)
    assert session.retrieve_vm(token).link == "anon_inode:kvm-vm"
    session.finish()


@pytest.mark.rules("P5")
def test_sessions_have_one_name_each(host: Session) -> None:
    """A second session of a name is refused; once the first is closed the name is free."""
    first = host.liveupdate.create_session(NAME)
    with raises_errno(errno.EEXIST):
        host.liveupdate.create_session(NAME)
    assert first.name == NAME
    first.close()
    host.liveupdate.create_session(NAME)
    for name in ("", "n" * 64):
        with raises_errno(errno.EINVAL):
            host.liveupdate.create_session(name)


@pytest.mark.rules("P7", "F5")
def test_refused_memory_is_not_frozen_and_nothing_is_lost(host: Session, seed: int) -> None:
    """A preserve that is refused, a thousand times over, leaves the memory as it was and costs nothing."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    session = host.liveupdate.create_session(NAME)
    session.preserve(host.kvm.create_vm(), token=MEMORY)
    free = host.memory_free()
    for _ in range(1000):
        with raises_errno(errno.EEXIST):
            session.preserve(guest.memory, token=MEMORY)
    host.memory_returned(free)
    guest.memory.fallocate(2 * MiB, PAGE)
    guest.memory.punch_hole(2 * MiB, PAGE)
    guest.memory.verify(seed=seed, length=1 * MiB)


@pytest.mark.rules("P6", "P7")
def test_broken_page_is_not_taken_along(host: Session, seed: int) -> None:
    """A memory with a page that the hardware lost is refused as a whole, and stays what it was."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    child = host.spawn()
    try:
        child.take(guest.memory).poison(17 * PAGE)
    except ProcessEnded:
        pass  # who had the page gets SIGBUS
    except RemoteError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("this kernel has no CONFIG_MEMORY_FAILURE")
    session = host.liveupdate.create_session(NAME)
    session.preserve(guest.vm, token=VM)
    free = host.memory_free()
    with raises_errno(EHWPOISON):
        session.preserve(guest.memory, token=MEMORY)
    host.memory_returned(free)
    guest.memory.fallocate(2 * MiB, PAGE)
    guest.memory.verify(seed=seed, length=17 * PAGE)
    guest.memory.verify(seed=seed, offset=18 * PAGE, length=1 * MiB - 18 * PAGE)
