# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory through the typed objects: what differs is an error that names it, what is right is counted."""

from __future__ import annotations

import errno

import pytest

from harness.case import KiB, MiB
from harness.errors import KernelError
from harness.guest import resources
from harness.guest.errors import MemoryDiffers, UnexpectedResult, raises_errno
from harness.guest.resources import Binding, Capabilities, GuestMemfd, VcpuExit, Vm
from harness.guest.session import Session

PAGE = 4096


def test_filled_memory_verifies(host: Session) -> None:
    memory = host.files.memfd(1 * MiB)
    memory.fill(seed=7)
    memory.verify(seed=7)
    memory.verify(seed=7, offset=512 * KiB, length=8 * KiB)
    memory.touch(0, 1 * MiB, store=True)
    assert memory.read(5, 3) == memory.read(0, 8)[5:]
    assert memory.size == 1 * MiB


def test_what_differs_is_named(host: Session) -> None:
    memory = host.files.memfd(1 * MiB)
    memory.fill(seed=7)
    memory.swap_pages(3, 200)
    with pytest.raises(MemoryDiffers, match="page 3: holds page 200's content, and 1 more") as caught:
        memory.verify(seed=7)
    assert isinstance(caught.value, KernelError)
    assert [one.page for one in caught.value.differences] == [3, 200]
    assert "first at offset 0xc8000" in caught.value.detail
    memory.swap_pages(3, 200)
    memory.flip(5 * PAGE + 1, 0x80)
    with pytest.raises(MemoryDiffers, match="page 5: one bit flipped: bit 7 of byte 1"):
        memory.verify(seed=7)
    memory.drop_page(5)
    with pytest.raises(MemoryDiffers, match="page 5: all zeroes"):
        memory.verify(seed=7)
    memory.fill(seed=6, offset=5 * PAGE, length=PAGE)
    with pytest.raises(MemoryDiffers, match="page 5: holds seed 6's content for this page"):
        memory.verify(seed=7, candidates=[6])


def test_zeroes_are_checked(host: Session) -> None:
    memory = host.files.memfd(64 * KiB)
    memory.verify_zero()
    memory.write(2 * PAGE + 7, b"x")
    memory.verify_zero(length=2 * PAGE)
    with pytest.raises(MemoryDiffers, match="page 2: 1 bytes are not zero"):
        memory.verify_zero()


def test_bytes_are_counted_once_for_each_boot_and_only_after_an_update(host: Session) -> None:
    memory = host.files.memfd(64 * KiB)
    memory.fill(seed=7)
    memory.verify(seed=7)
    assert host.journal.bytes_verified == 0
    host = host.live_update()
    memory = host.files.memfd(64 * KiB)
    memory.fill(seed=7)
    for offset, length in ((0, 8 * KiB), (4 * KiB, 8 * KiB), (32 * KiB, 4 * KiB), (0, 4 * KiB)):
        memory.verify(seed=7, offset=offset, length=length)
    assert host.journal.bytes_verified == 16 * KiB
    memory.flip(40 * KiB)
    with pytest.raises(MemoryDiffers):
        memory.verify(seed=7)
    assert host.journal.bytes_verified == 16 * KiB
    host = host.live_update()
    host.files.memfd(4 * KiB).verify_zero()
    assert host.journal.bytes_verified == 20 * KiB


def test_a_file_can_be_closed_duplicated_and_punched(host: Session) -> None:
    memory = host.files.memfd(64 * KiB)
    memory.fill(seed=7)
    other = memory.dup()
    memory.close()
    with raises_errno(errno.EBADF):
        memory.fallocate(0, PAGE)
    other.punch_hole(0, PAGE)
    other.verify_zero(length=PAGE)
    other.verify(seed=7, offset=PAGE)
    assert other.link.startswith("/memfd:luh")


def test_raw_ioctls_pass_bytes_both_ways(host: Session) -> None:
    source, sink = host.files.pipe()
    sink.write_fd(b"12345")
    assert source.ioctl(0x541B, bytes(4)) == (0, b"\x05\0\0\0")  # FIONREAD


def test_a_vm_knows_where_the_guest_sees_its_memory(host: Session) -> None:
    vm, memory, other = Vm(host, 1), GuestMemfd(host, 2), GuestMemfd(host, 3)
    vm.bindings[0] = Binding(memory, gpa=1 * MiB, offset=64 * KiB, length=64 * KiB)
    assert vm.address(memory, 64 * KiB + 5) == 1 * MiB + 5
    for unbound, offset in ((memory, 0), (memory, 128 * KiB), (other, 64 * KiB)):
        with pytest.raises(UnexpectedResult, match="bind it first"):
            vm.address(unbound, offset)


def test_a_memory_fault_exit_has_its_address() -> None:
    fault = {"gpa": 0x5000, "size": 0x1000, "flags": 0}
    report = {"reason": "memory_fault", "errno": 1, "registers": {}, "memory_fault": fault}
    end = VcpuExit.of(report)
    assert (end.reason, end.errno, end.fault_gpa, end.fault_size) == (
        "memory_fault",
        errno.EPERM,
        0x5000,
        0x1000,
    )


def test_what_a_kernel_lacks_is_one_line() -> None:
    able = Capabilities({"kvm": "", "preserve_vm": "ENOENT: No such file or directory"})
    assert able.missing(["kvm"]) == ""
    assert able.missing(["kvm", "preserve_vm"]) == (
        "this kernel cannot preserve a VM (ENOENT: No such file or directory)"
    )


def test_the_probe_tells_what_is_missing(host: Session) -> None:
    able = host.probe()
    assert able.missing(["liveupdate"]) == "" or "liveupdate" in able.missing(["liveupdate"])
    assert set(able.by_name) >= {
        "kvm",
        "guest_memfd",
        "preserve_memfd",
        "preserve_vm",
        "preserve_guest_memfd",
    }


def test_pages_are_waited_for(host: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "SETTLE_SECONDS", 0.2)
    memory = host.files.memfd(16 * PAGE)
    memory.fill(seed=1, offset=4 * PAGE, length=2 * PAGE)
    memory.settled([(4, 2)])
    with pytest.raises(UnexpectedResult, match=r"\[\(4, 2\)\], not \[\(4, 3\)\]"):
        memory.settled([(4, 3)])
