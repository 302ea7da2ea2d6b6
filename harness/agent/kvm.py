# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's ioctls (include/uapi/linux/kvm.h); errors are OSError with KVM's errno, passed on as they are."""

from __future__ import annotations

import fcntl
import os
import struct

from .files import File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .files import Mapping

KVMIO = 0xAE
_WRITE, _READ = 1, 2


def _request(number: int, direction: int = 0, size: int = 0) -> int:
    """_IO, _IOW, _IOR and _IOWR of include/uapi/asm-generic/ioctl.h, of KVM's type."""
    return direction << 30 | size << 16 | KVMIO << 8 | number


CREATE_VM = _request(0x01)
CHECK_EXTENSION = _request(0x03)
GET_VCPU_MMAP_SIZE = _request(0x04)
GET_SUPPORTED_CPUID = _request(0x05, _READ | _WRITE, 8)
CREATE_VCPU = _request(0x41)
SET_USER_MEMORY_REGION2 = _request(0x49, _WRITE, 160)
RUN = _request(0x80)
GET_REGS = _request(0x81, _READ, 144)
SET_REGS = _request(0x82, _WRITE, 144)
GET_SREGS = _request(0x83, _READ, 312)
SET_SREGS = _request(0x84, _WRITE, 312)
SET_CPUID2 = _request(0x90, _WRITE, 8)
ENABLE_CAP = _request(0xA3, _WRITE, 104)
GET_STATS_FD = _request(0xCE)
SET_MEMORY_ATTRIBUTES = _request(0xD2, _WRITE, 32)
CREATE_GUEST_MEMFD = _request(0xD4, _READ | _WRITE, 64)
PRE_FAULT_MEMORY = _request(0xD5, _READ | _WRITE, 64)

MEM_GUEST_MEMFD = 1 << 2
CPUID_ENTRIES = 256


class Vm(File):
    """A VM. code: the memory that holds page tables and payloads for its vCPUs (vcpu.py), once it has any."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.code: Mapping | None = None

    def close(self) -> None:
        # The vCPUs that are left hold on to it.
        self.code = None
        super().close()


def create_vm(type: int = 0) -> Vm:
    return Vm(_system(CREATE_VM, type))


def check_extension(capability: int, vm: Vm | None = None) -> int:
    """KVM_CHECK_EXTENSION, of the VM or of the whole of KVM."""
    return fcntl.ioctl(vm.fd, CHECK_EXTENSION, capability) if vm else _system(CHECK_EXTENSION, capability)


def create_guest_memfd(vm: Vm, size: int, flags: int) -> File:
    """KVM_CREATE_GUEST_MEMFD; flags: GUEST_MEMFD_FLAG_MMAP is 1, INIT_SHARED is 2."""
    # Only a mutable buffer makes fcntl.ioctl return the call's own result.
    return File(fcntl.ioctl(vm.fd, CREATE_GUEST_MEMFD, bytearray(struct.pack("=QQ48x", size, flags)), True))


def set_memory(
    vm: Vm,
    slot: int,
    gpa: int,
    size: int,
    flags: int = 0,
    memory: File | None = None,
    offset: int = 0,
    backing: File | None = None,
) -> None:
    """KVM_SET_USER_MEMORY_REGION2. memory: a guest_memfd to bind from `offset` on; size 0 deletes the slot.

    backing: a file whose mapping holds the slot's shared memory, where that is not the guest_memfd itself.
    """
    if memory:
        flags |= MEM_GUEST_MEMFD
    address = backing.mapping.address if backing else 0
    descriptor = memory.fd if memory else 0
    set_region(vm, slot, flags, gpa, size, address, offset, descriptor)


def set_region(
    vm: Vm, slot: int, flags: int, gpa: int, size: int, address: int, offset: int = 0, descriptor: int = 0
) -> None:
    """struct kvm_userspace_memory_region2, field by field."""
    region = struct.pack("=IIQQQQI116x", slot, flags, gpa, size, address, offset, descriptor & 0xFFFFFFFF)
    fcntl.ioctl(vm.fd, SET_USER_MEMORY_REGION2, region)


def set_memory_attributes(vm: Vm, gpa: int, size: int, attributes: int) -> None:
    fcntl.ioctl(vm.fd, SET_MEMORY_ATTRIBUTES, struct.pack("=QQQQ", gpa, size, attributes, 0))


def enable_cap(file: File, capability: int, argument: int = 0) -> None:
    """KVM_ENABLE_CAP, of a VM or a vCPU, with its first argument."""
    fcntl.ioctl(file.fd, ENABLE_CAP, struct.pack("=IIQ88x", capability, 0, argument))


def stats(file: File) -> File:
    """The statistics file of a VM or a vCPU."""
    return File(fcntl.ioctl(file.fd, GET_STATS_FD))


def supported_cpuid() -> bytes:
    """struct kvm_cpuid2 with all that KVM offers, in the form that KVM_SET_CPUID2 takes."""
    table = bytearray(struct.pack("=II", CPUID_ENTRIES, 0) + bytes(40 * CPUID_ENTRIES))
    _system(GET_SUPPORTED_CPUID, table)
    return bytes(table)


def vcpu_mmap_size() -> int:
    return _system(GET_VCPU_MMAP_SIZE)


def _system(request: int, argument: int | bytearray = 0) -> int:
    """An ioctl on /dev/kvm itself."""
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        value: int = fcntl.ioctl(fd, request, argument)
        return value
    finally:
        os.close(fd)


OPERATIONS: dict[str, Callable[..., object]] = {
    "create_vm": create_vm,
    "check_extension": check_extension,
    "create_guest_memfd": create_guest_memfd,
    "set_memory": set_memory,
    "set_memory_attributes": set_memory_attributes,
    "enable_cap": enable_cap,
    "stats": stats,
}
