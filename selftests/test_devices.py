# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VMM has to build again after an update: everything of a VM but its memory.

At stake: a VMM that restores its devices does so on a VM that it takes for empty. An interrupt that an old
route still delivers, a doorbell that an old registration swallows or a vCPU's number that is still taken
would meet it long after the update, as a guest that hangs or as a device that cannot be made again.
"""

from __future__ import annotations

import errno
import struct

import pytest

from harness.case import GiB
from harness.guest.errors import raises_errno
from harness.guest.resources import Vm
from harness.guest.session import Session
from selftests.vms import MEMORY, NAME, VM, make_guest, preserve, preserve_files, start_guest

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

# include/uapi/linux/kvm.h
CREATE_IRQCHIP, GET_IRQCHIP = 0xAE60, 0xC208AE62
IRQ_LINE_STATUS, SET_GSI_ROUTING = 0xC008AE67, 0x4008AE6A
IRQFD, IOEVENTFD, REGISTER_COALESCED_MMIO = 0x4020AE76, 0x4040AE79, 0x4010AE67
ROUTE_TO_IRQCHIP, IOAPIC = 1, 2
# Beyond what CREATE_IRQCHIP routes by itself (arch/x86/kvm/irq.c).
GSI, PIN = 40, 5
DOORBELL = 3 * GiB


def eventfd(host: Session) -> int:
    """The number that a new eventfd has in the host."""
    number: int = host.call("files.number", file={"handle": host.call("files.eventfd")["handle"]})
    return number


def ring(vm: Vm, eventfd: int) -> None:
    """KVM_IOEVENTFD: a guest's store of four bytes at DOORBELL rings the eventfd."""
    vm.ioctl(IOEVENTFD, struct.pack("<QQIiI36x", 0, DOORBELL, 4, eventfd, 0))


def inject(vm: Vm, eventfd: int) -> None:
    """KVM_IRQFD: the eventfd raises the interrupt GSI."""
    vm.ioctl(IRQFD, struct.pack("<III20x", eventfd, GSI, 0))


def route(vm: Vm) -> None:
    """KVM_SET_GSI_ROUTING: GSI alone, to a pin of the IOAPIC."""
    vm.ioctl(SET_GSI_ROUTING, struct.pack("<II IIII II24x", 1, 0, GSI, ROUTE_TO_IRQCHIP, 0, 0, IOAPIC, PIN))


def is_routed(vm: Vm) -> bool:
    """Whether lowering GSI reaches an interrupt controller; KVM_IRQ_LINE_STATUS says -1 if not."""
    _, answer = vm.ioctl(IRQ_LINE_STATUS, struct.pack("<II", GSI, 0))
    status: int = struct.unpack_from("<i", answer)[0]
    return status >= 0


def brought_over(host: Session, vm: Vm) -> tuple[Session, Vm]:
    """The next kernel, and the VM alone in it, finished."""
    preserve_files(host, {VM: vm})
    host = host.live_update()
    session = host.liveupdate.retrieve_session(NAME)
    vm = session.retrieve_vm(VM)
    session.finish()
    return host, vm


@pytest.mark.rules("K4")
def test_interrupt_controllers_and_ioeventfds_are_gone(host: Session) -> None:
    """Interrupt controllers and ioeventfds of the old VM are gone, and the new one can have its own."""
    vm = host.kvm.create_vm()
    vm.ioctl(CREATE_IRQCHIP)
    ring(vm, number := eventfd(host))
    with raises_errno(errno.EEXIST):
        vm.ioctl(CREATE_IRQCHIP)
    with raises_errno(errno.EEXIST):
        ring(vm, number)

    host, vm = brought_over(host, vm)

    with raises_errno(errno.ENXIO):
        vm.ioctl(GET_IRQCHIP, bytes(520))
    vm.ioctl(CREATE_IRQCHIP)
    ring(vm, eventfd(host))


@pytest.mark.rules("K4")
def test_routes_and_irqfds_are_gone(host: Session) -> None:
    """An interrupt that the old VM routed leads nowhere, until the VMM routes and binds it again."""
    vm = host.kvm.create_vm()
    vm.ioctl(CREATE_IRQCHIP)
    assert not is_routed(vm)
    route(vm)
    assert is_routed(vm)
    inject(vm, number := eventfd(host))
    with raises_errno(errno.EBUSY):
        inject(vm, number)

    host, vm = brought_over(host, vm)

    with raises_errno(errno.ENXIO):
        vm.ioctl(IRQ_LINE_STATUS, struct.pack("<II", GSI, 0))
    vm.ioctl(CREATE_IRQCHIP)
    assert not is_routed(vm)
    route(vm)
    assert is_routed(vm)
    inject(vm, eventfd(host))


@pytest.mark.rules("K4")
def test_coalesced_stores_reach_the_vmm_again(host: Session) -> None:
    """A store that the old VM only noted in its ring leaves the guest as MMIO in the new one."""
    guest = make_guest(host)

    def store() -> str:
        return guest.vcpu.run("touch", rdi=DOORBELL, rsi=1, rdx=1, rax=1).reason

    assert store() == "mmio"
    assert guest.vcpu.resume().reason == "hlt"
    guest.vm.ioctl(REGISTER_COALESCED_MMIO, struct.pack("<QII", DOORBELL, 8, 0))
    assert store() == "hlt"
    preserve(host, guest)

    host = host.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    guest = start_guest(session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY))
    session.finish()
    assert store() == "mmio"


@pytest.mark.rules("K4")
def test_memslots_and_vcpus_are_gone(host: Session, seed: int) -> None:
    """Memslots and vCPUs are gone: their numbers are free, and the guest's addresses lead nowhere."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed)
    preserve(host, guest)

    host = host.live_update()

    session = host.liveupdate.retrieve_session(NAME)
    vm, memory = session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY)
    session.finish()
    vcpu = vm.create_vcpu(0)
    assert vcpu.run("touch", rdi=0, rsi=1, rdx=0, rax=0).reason == "mmio"
    assert vcpu.resume().reason == "hlt"
    vm.bind(memory, gpa=1 << 31, slot=0)
    vcpu.verify(memory, seed=seed)
