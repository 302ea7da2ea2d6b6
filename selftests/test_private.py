# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs with private memory: their pages change hands, and no live update takes them along.

At stake: a confidential guest's memory is private until the guest says otherwise. Each conversion must hit
exactly the pages that were meant, and a kernel that learned to carry shared memory over a kexec must neither
touch private memory nor disturb those who use it. Software-protected VMs stand in for the real ones.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from harness.case import MiB
from harness.guest.errors import raises_errno
from harness.guest.resources import GuestMemfd, Memfd, Vcpu, Vm
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, PAGE, VM

pytestmark = pytest.mark.needs("guest_memfd")

# include/uapi/linux/kvm.h and include/uapi/linux/kvm_para.h
CAP_EXIT_HYPERCALL, CAP_MEMORY_ATTRIBUTES, CAP_VM_TYPES = 201, 233, 235
SW_PROTECTED_VM = 1
SHARED, PRIVATE = 0, 1 << 3
FAULT_PRIVATE = 1 << 3
HC_MAP_GPA_RANGE = 12
TO_PRIVATE, TO_SHARED = 1 << 4, 0

SIZE = 4 * MiB
PAGES = 252
FIRST = 128
VALUE = 1 << 32


@dataclass(frozen=True, slots=True)
class Protected:
    """A VM whose memory has two sides: what is private is in `private`, what is shared in `shared`."""

    vm: Vm
    private: GuestMemfd
    shared: Memfd
    vcpu: Vcpu

    def convert(self, first: int, count: int, attributes: int) -> None:
        """What a VMM does: change the attribute, and drop the pages of the side that is left."""
        self.vm.set_memory_attributes(first * PAGE, count * PAGE, attributes)
        left = self.shared if attributes == PRIVATE else self.private
        left.punch_hole(first * PAGE, count * PAGE)

    def march(self, first: int, count: int, value: int) -> None:
        """Have the guest store to each page: value, value + 1, ...; counted in the shared first page."""
        end = self.vcpu.run("march", rdi=first * PAGE, rsi=count, rdx=8, rcx=0, rax=value)
        assert (end.reason, end.errno) == ("hlt", 0), end


def protected(host: Session) -> Protected:
    """A software-protected VM, all of its memory shared at first; skips where KVM has none."""
    if not host.kvm.check_extension(CAP_VM_TYPES) & 1 << SW_PROTECTED_VM:
        pytest.skip("this kernel has no software-protected VMs")
    vm = host.kvm.create_vm(type=SW_PROTECTED_VM)
    private = vm.create_guest_memfd(SIZE)
    shared = host.files.memfd(SIZE)
    vm.bind(private, gpa=0, slot=0, backing=shared)
    return Protected(vm, private, shared, vm.create_vcpu())


def test_attributes_say_what_they_can(host: Session) -> None:
    """A VM that can have private memory has that one attribute; others and odd ranges are refused."""
    guest = protected(host)
    assert guest.vm.check_extension(CAP_MEMORY_ATTRIBUTES) == PRIVATE
    wrong = ((0, PAGE, 1), (0, PAGE, PRIVATE | 1), (1, PAGE, PRIVATE), (0, 1, PRIVATE), (0, 0, PRIVATE))
    for gpa, size, attributes in (*wrong, ((1 << 64) - PAGE, 2 * PAGE, PRIVATE)):
        with raises_errno(errno.EINVAL):
            guest.vm.set_memory_attributes(gpa, size, attributes)
    guest.march(FIRST, 1, VALUE)
    assert guest.shared.words(FIRST * PAGE, 1) == [VALUE]


@pytest.mark.parametrize("at_once", [True, False], ids=["one-range", "single-pages"])
def test_conversions(host: Session, at_once: bool) -> None:
    """252 pages become private and shared again, at once or one by one: the guest sees its side."""
    guest = protected(host)
    ranges = [(FIRST, PAGES)] if at_once else [(FIRST + number, 1) for number in range(PAGES)]
    for turn in range(2):
        guest.march(FIRST, PAGES, VALUE + turn)
        assert guest.shared.words(FIRST * PAGE, PAGES) == [VALUE + turn + n for n in range(PAGES)]
        for one in ranges:
            guest.convert(*one, PRIVATE)
        # The shared side was punched; what the guest writes now goes to the other one.
        guest.march(FIRST, PAGES, 7)
        assert guest.private.allocated() == [(FIRST, PAGES)]
        guest.shared.verify_zero(offset=FIRST * PAGE, length=PAGES * PAGE)
        for one in ranges:
            guest.convert(*one, SHARED)
        assert guest.private.allocated() == []
        end = guest.vcpu.run("touch", rdi=FIRST * PAGE, rsi=PAGES, rdx=0, rax=0)
        assert (end.reason, end.registers["rax"]) == ("hlt", 0)


def test_mixed_attributes(host: Session) -> None:
    """Where every other page is private, each access of the guest goes to the side of its page."""
    guest = protected(host)
    for number in range(0, PAGES, 2):
        guest.vm.set_memory_attributes((FIRST + number) * PAGE, PAGE, PRIVATE)
    guest.march(FIRST, PAGES, VALUE)
    seen = guest.shared.words(FIRST * PAGE, PAGES)
    assert seen == [VALUE + number if number % 2 else 0 for number in range(PAGES)]
    assert guest.private.allocated() == [(FIRST + number, 1) for number in range(0, PAGES, 2)]
    for number in range(1, PAGES, 2):
        guest.convert(FIRST + number, 1, PRIVATE)
    guest.march(FIRST, PAGES, VALUE)
    assert guest.private.allocated() == [(FIRST, PAGES)]


def test_private_page_without_private_memory(host: Session) -> None:
    """An access to a private page that has no private memory comes back as a memory fault that says so."""
    guest = protected(host)
    other = host.files.memfd(1 * MiB)
    host.call("kvm.set_memory", vm=guest.vm, slot=1, gpa=1 << 30, size=1 * MiB, backing=other)
    assert guest.vcpu.run("touch", rdi=1 << 30, rsi=1, rdx=5, rax=1).reason == "hlt"
    guest.vm.set_memory_attributes(1 << 30, PAGE, PRIVATE)
    end = guest.vcpu.run("touch", rdi=1 << 30, rsi=1, rdx=6, rax=1)
    assert (end.reason, end.errno) == ("memory_fault", errno.EFAULT)
    assert (end.fault_gpa, end.fault_size, end.fault_flags) == (1 << 30, PAGE, FAULT_PRIVATE)
    # The VMM converts it back, and the guest goes on where it stood.
    guest.vm.set_memory_attributes(1 << 30, PAGE, SHARED)
    assert guest.vcpu.resume().reason == "hlt"
    assert other.words(0, 1) == [6]


def test_guest_asks_for_a_conversion(host: Session) -> None:
    """KVM_HC_MAP_GPA_RANGE leaves to the VMM with its arguments, which converts, and the guest goes on."""
    guest = protected(host)
    guest.vm.enable_cap(CAP_EXIT_HYPERCALL, 1 << HC_MAP_GPA_RANGE)
    for attributes, flag in ((PRIVATE, TO_PRIVATE), (SHARED, TO_SHARED)):
        end = guest.vcpu.run("hypercall", rax=HC_MAP_GPA_RANGE, rbx=FIRST * PAGE, rcx=PAGES, rdx=flag)
        assert (end.reason, end.errno) == ("hypercall", 0)
        assert end.details["number"] == HC_MAP_GPA_RANGE
        assert end.details["arguments"][:3] == [FIRST * PAGE, PAGES, flag]
        guest.convert(FIRST, PAGES, attributes)
        end = guest.vcpu.resume()
        assert (end.reason, end.registers["rax"]) == ("hlt", 0)
        guest.march(FIRST, PAGES, VALUE)
        expected = [(FIRST, PAGES)] if attributes == PRIVATE else []
        assert guest.private.allocated() == expected


@pytest.mark.needs("preserve_vm", "preserve_guest_memfd")
@pytest.mark.rules("P3", "P7")
def test_private_memory_is_refused_and_works_on(host: Session) -> None:
    """A preserve that is refused leaves a VM with mixed memory as it was; its conversions go on."""
    guest = protected(host)
    guest.convert(FIRST, PAGES // 2, PRIVATE)
    guest.march(FIRST, PAGES, VALUE)
    session = host.liveupdate.create_session(NAME)
    session.preserve(guest.vm, token=VM)
    with raises_errno(errno.ENOENT):
        session.preserve(guest.private, token=MEMORY)
    guest.convert(FIRST + PAGES // 2, PAGES // 2, PRIVATE)
    guest.march(FIRST, PAGES, VALUE)
    assert guest.private.allocated() == [(FIRST, PAGES)]

    session = (host := host.live_update()).liveupdate.retrieve_session(NAME)

    # The VM is one that can have private memory; all of it is shared again, and there is none.
    vm = session.retrieve_vm(VM)
    session.finish()
    assert vm.check_extension(CAP_MEMORY_ATTRIBUTES) == PRIVATE
    shared = host.files.memfd(SIZE)
    vm.bind(vm.create_guest_memfd(SIZE), gpa=0, slot=0, backing=shared)
    again = Protected(vm, GuestMemfd(host, vm.bindings[0].memory.handle), shared, vm.create_vcpu())
    again.march(FIRST, PAGES, VALUE)
    assert shared.words(FIRST * PAGE, 1) == [VALUE]
    again.convert(FIRST, PAGES, PRIVATE)
    again.march(FIRST, PAGES, VALUE)
    assert again.private.allocated() == [(FIRST, PAGES)]
