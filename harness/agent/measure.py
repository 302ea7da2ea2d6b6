# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's own steps cost: the time of single system calls, and the memory that they take.

Times are seconds around the system call itself, without what the agent and the wire add. Bytes are the
difference of the memory that the kernel has free.
"""

from __future__ import annotations

import os
import struct
import time

from . import host, kvm, liveupdate, vcpu
from .files import File
from .libc import syscall
from .pattern import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# include/uapi/asm-generic/mman-common.h: fault in every page of a range, for writing.
MADV_POPULATE_WRITE = 23
# What one system call takes: so many elements (UIO_MAXIOV), and less than 2 GiB (MAX_RW_COUNT).
IOVECS = 1024
RANGE_PAGES = (1 << 30) // PAGE
RUN_SECONDS = 10.0


def populate(file: File, first: int, count: int, stride: int = 1) -> float:
    """Write to `count` pages, every `stride`-th from `first` on; returns the seconds that it took.

    Pages that are missing are allocated in that order.
    """
    calls = list(_vectors(file.mapping.address, first, count, stride))
    itself = os.pidfd_open(os.getpid())
    try:
        started = time.perf_counter()
        for vector in calls:
            syscall("process_madvise", itself, vector, len(vector) // 16, MADV_POPULATE_WRITE, 0)
        return time.perf_counter() - started
    finally:
        os.close(itself)


def preserve(session: File, file: File, token: int) -> dict[str, float]:
    """PRESERVE_FD: its "seconds", and the "bytes" that are gone from the kernel's free memory after it."""
    host.settle()
    before = _free()
    started = time.perf_counter()
    liveupdate.preserve(session, file, token)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": before - _free()}


def close(file: File) -> float:
    """close(2), of a session: its files are unpreserved."""
    started = time.perf_counter()
    file.close()
    return time.perf_counter() - started


def retrieve(session: File, token: int, kind: str = "file") -> dict[str, object]:
    """RETRIEVE_FD: the "file" and the "seconds"."""
    started = time.perf_counter()
    file = liveupdate.retrieve(session, token, kind)
    return {"file": file, "seconds": time.perf_counter() - started}


def restart(session: File, vm_token: int, memory_token: int, page: int) -> dict[str, object]:
    """Retrieve a VM and its memory, and run the guest until it has read a word of that page.

    Returns the files, the seconds of each step, and those from the very start, "to_guest". The code that the
    guest runs is made before that: it stands for what comes through an update with the memory.
    """
    spare = vcpu.create(kvm.create_vm())
    vcpu.run(spare, "touch", {"rdi": spare.code_gpa, "rsi": 1}, RUN_SECONDS)
    code = spare.code
    assert code is not None
    started = time.perf_counter()
    vm = liveupdate.retrieve(session, vm_token, "vm")
    have_vm = time.perf_counter()
    memory = liveupdate.retrieve(session, memory_token)
    have_memory = time.perf_counter()
    assert isinstance(vm, kvm.Vm)
    size = os.fstat(memory.fd).st_size
    address = memory.mapping.address
    kvm.set_region(vm, 0, kvm.MEM_GUEST_MEMFD, 0, size, address, 0, memory.fd)
    vm.code = code
    kvm.set_region(vm, vcpu.CODE_SLOT, 0, spare.code_gpa, vcpu.CODE_SIZE, code.address)
    bound = time.perf_counter()
    cpu = vcpu.create(vm)
    created = time.perf_counter()
    ended = vcpu.run(cpu, "touch", {"rdi": page * PAGE, "rsi": 1}, RUN_SECONDS)
    in_guest = time.perf_counter()
    if ended["reason"] != "hlt":
        raise OSError(ended["errno"] or 5, f"the guest ended with {ended['reason']}")
    return {
        "vm": vm,
        "memory": memory,
        "vcpu": cpu,
        "retrieve_vm": have_vm - started,
        "retrieve": have_memory - have_vm,
        "bind": bound - have_memory,
        "create": created - bound,
        "run": in_guest - created,
        "to_guest": in_guest - started,
    }


def _vectors(address: int, first: int, count: int, stride: int) -> Iterator[bytes]:
    """Arrays of struct iovec for pages of the mapping at that address; those of a range have one element."""
    if stride == 1:
        for done in range(0, count, RANGE_PAGES):
            yield struct.pack("=QQ", address + (first + done) * PAGE, min(RANGE_PAGES, count - done) * PAGE)
        return
    for done in range(0, count, IOVECS):
        fields: list[int] = []
        for number in range(done, min(done + IOVECS, count)):
            fields += (address + (first + number * stride) * PAGE, PAGE)
        yield struct.pack(f"={len(fields)}Q", *fields)


def _free() -> int:
    now = host.memory()
    return now["free"] + now["per_cpu"]


OPERATIONS: dict[str, Callable[..., object]] = {
    "populate": populate,
    "preserve": preserve,
    "close": close,
    "retrieve": retrieve,
    "restart": restart,
}
