# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that run small payloads (guest-images/l2/*.S) in 64-bit mode on a VM's memory.

The agent puts page tables and payloads into a memslot of its own, far above the VM's memory, and sets the
vCPU up in long mode with an identity mapping: gpa = virtual address. There is no IDT, so an exception in the
payload is a triple fault and a "shutdown" exit. A payload takes and returns everything in registers and ends
with HLT. KVM_RUN happens in a thread, so that a vCPU can run beside other operations and be stopped.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import struct

from . import kvm
from .files import File, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # without enum and all that it imports: a quarter of a second under TCG

L2_DIRECTORY = os.environ.get("LUH_L2", "/luh/l2")

CODE_SLOT = 500
CODE_SIZE = 16 * 4096
# The page of the PML4, of the first of the page directory pointer tables, and of the first payload.
PML4, PDPT, PDPT_COUNT, PAYLOADS = 0, 1, 4, 5
TABLE_ENTRY = 0x23  # present, writable, accessed
HUGE_ENTRY = 0xE3  # the same, dirty, and 1 GiB large

REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
EXITS = {
    0: "unknown", 1: "exception", 2: "io", 3: "hypercall", 5: "hlt", 6: "mmio", 8: "shutdown",
    9: "fail_entry", 10: "intr", 17: "internal_error", 24: "system_event", 39: "memory_fault",
}  # fmt: skip

# The probe's payload: mov $0x42,%al; out %al,$0x10; hlt
PROBE_CODE = bytes.fromhex("b042e610f4")

_payloads: dict[str, bytes] = {"probe": PROBE_CODE}
_cpuid = b""


class Vcpu(File):
    """A vCPU, and the thread that it runs in while it does.

    It holds on to the VM's code memory, as the vCPU itself holds on to the VM.
    """

    def __init__(self, fd: int, code: Mapping, code_gpa: int) -> None:
        super().__init__(fd)
        self.code: Mapping | None = code
        self.code_gpa = code_gpa
        self.run_area = Mapping(fd, kvm.vcpu_mmap_size())
        self.done = _thread.allocate_lock()
        self.thread = 0
        self.stopping = False
        self.errno = 0

    def close(self) -> None:
        stop(self)
        self.run_area.close()
        self.code = None
        super().close()


def create(vm: kvm.Vm, number: int = 0) -> Vcpu:
    """KVM_CREATE_VCPU, made ready to run payloads."""
    global _cpuid
    _cpuid = _cpuid or kvm.supported_cpuid()
    code_gpa = _code_gpa(_cpuid)
    if vm.code is None:
        vm.code = _code_memory(code_gpa)
        kvm.set_region(vm, CODE_SLOT, 0, code_gpa, CODE_SIZE, vm.code.address)
    vcpu = Vcpu(fcntl.ioctl(vm.fd, kvm.CREATE_VCPU, number), vm.code, code_gpa)
    fcntl.ioctl(vcpu.fd, kvm.SET_CPUID2, bytearray(_cpuid), True)
    _enter_long_mode(vcpu)
    return vcpu


def run(vcpu: Vcpu, payload: str, registers: dict[str, int], seconds: float) -> dict[str, object]:
    """Run a payload from its start until the vCPU exits to the agent; see `wait` for what is returned."""
    start(vcpu, payload, registers)
    return wait(vcpu, seconds)


def resume(vcpu: Vcpu, seconds: float) -> dict[str, object]:
    """Go on where the vCPU stopped."""
    _launch(vcpu)
    return wait(vcpu, seconds)


def run_here(vcpu: Vcpu, payload: str, registers: dict[str, int]) -> dict[str, object]:
    """As `run`, but in this thread, whose allocations can be made to fail; nothing ends it but the guest."""
    _prepare(vcpu, payload, registers)
    vcpu.stopping, vcpu.errno = False, 0
    vcpu.run_area.view[1] = 0
    try:
        fcntl.ioctl(vcpu.fd, kvm.RUN, 0)
    except OSError as error:
        vcpu.errno = error.errno or 0
    return _describe(vcpu)


def start(vcpu: Vcpu, payload: str, registers: dict[str, int]) -> None:
    """Begin to run a payload and return at once."""
    _prepare(vcpu, payload, registers)
    _launch(vcpu)


def wait(vcpu: Vcpu, seconds: float) -> dict[str, object]:
    """Wait until the vCPU exits, or stop it after so many seconds; returns how it ended.

    reason: the exit's name, or "stopped". errno: of KVM_RUN, 0 if it returned none. registers: by name.
    memory_fault: gpa, size and flags, for that exit; io, hypercall, mmio and internal_error likewise.
    """
    if vcpu.thread and not vcpu.done.acquire(timeout=seconds):
        return stop(vcpu)
    vcpu.thread = 0
    return _describe(vcpu)


def stop(vcpu: Vcpu) -> dict[str, object]:
    """Make a running vCPU leave the guest. Returns as `wait` does; {} if it was not running."""
    if not vcpu.thread:
        return {}
    # immediate_exit covers a signal that arrives just before KVM_RUN (Documentation/virt/kvm/api.rst).
    vcpu.stopping = True
    vcpu.run_area.view[1] = 1
    signal.pthread_kill(vcpu.thread, signal.SIGUSR1)
    vcpu.done.acquire()
    vcpu.thread = 0
    return _describe(vcpu)


def registers(vcpu: Vcpu) -> dict[str, int]:
    state = bytearray(144)
    fcntl.ioctl(vcpu.fd, kvm.GET_REGS, state, True)
    return dict(zip(REGISTERS, struct.unpack("=18Q", state), strict=True))


def pre_fault(vcpu: Vcpu, gpa: int, size: int) -> dict[str, int]:
    """KVM_PRE_FAULT_MEMORY; returns what it left undone."""
    request = bytearray(struct.pack("=QQQ40x", gpa, size, 0))
    fcntl.ioctl(vcpu.fd, kvm.PRE_FAULT_MEMORY, request, True)
    left_gpa, left_size = struct.unpack_from("=QQ", request)
    return {"gpa": left_gpa, "size": left_size}


def _prepare(vcpu: Vcpu, payload: str, registers: dict[str, int]) -> None:
    values = {**registers, "rip": _place(vcpu, payload), "rflags": 2}
    fcntl.ioctl(vcpu.fd, kvm.SET_REGS, struct.pack("=18Q", *[values.get(name, 0) for name in REGISTERS]))


def _launch(vcpu: Vcpu) -> None:
    if vcpu.thread:
        raise OSError(errno.EBUSY, "the vCPU is running")
    # A handler has to exist for the signal to interrupt KVM_RUN instead of ending the agent.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    vcpu.stopping, vcpu.errno = False, 0
    vcpu.run_area.view[1] = 0
    vcpu.done.acquire(blocking=False)
    vcpu.thread = _thread.start_new_thread(_loop, (vcpu,))


def _loop(vcpu: Vcpu) -> None:
    try:
        while True:
            try:
                fcntl.ioctl(vcpu.fd, kvm.RUN, 0)
                return
            except OSError as error:
                vcpu.errno = error.errno or 0
                if error.errno not in (errno.EINTR, errno.EAGAIN) or vcpu.stopping:
                    return
                vcpu.errno = 0
    finally:
        vcpu.done.release()


def _describe(vcpu: Vcpu) -> dict[str, object]:
    """The exit that struct kvm_run holds."""
    area = vcpu.run_area.view
    (number,) = struct.unpack_from("=I", area, 8)
    reason = EXITS.get(number, str(number))
    if vcpu.stopping and vcpu.errno == errno.EINTR:
        vcpu.errno, reason = 0, "stopped"
    report: dict[str, object] = {"reason": reason, "errno": vcpu.errno, "registers": registers(vcpu)}
    if reason == "memory_fault":
        report[reason] = dict(
            zip(("flags", "gpa", "size"), struct.unpack_from("=QQQ", area, 32), strict=True)
        )
    elif reason == "io":
        direction, size, port, _, at = struct.unpack_from("=BBHIQ", area, 32)
        value = int.from_bytes(area[at : at + size], "little") if direction else 0
        report[reason] = {"out": bool(direction), "port": port, "value": value}
    elif reason == "hypercall":
        number, *arguments = struct.unpack_from("=7Q", area, 32)
        report[reason] = {"number": number, "arguments": arguments}
    elif reason == "mmio":
        gpa, _, size, is_write = struct.unpack_from("=QQIB", area, 32)
        report[reason] = {"gpa": gpa, "size": size, "write": bool(is_write)}
    elif reason == "internal_error":
        report[reason] = {"suberror": struct.unpack_from("=I", area, 32)[0]}
    return report


def _code_gpa(cpuid: bytes) -> int:
    """Half of what a guest can address, at most 256 GiB: far above what a VM of a test has."""
    count, _ = struct.unpack_from("=II", cpuid)
    for number in range(count):
        function, _, _, eax = struct.unpack_from("=IIII", cpuid, 8 + 40 * number)
        if function == 0x80000008:
            address_bits: int = eax & 0xFF
            return 1 << min(address_bits - 1, 38)
    return 1 << 35


def _code_memory(gpa: int) -> Mapping:
    """Page tables that map the lowest 2 TiB onto themselves, and room for payloads."""
    code = Mapping(-1, CODE_SIZE)
    tables = range(gpa + PDPT * 4096 + TABLE_ENTRY, gpa + PAYLOADS * 4096, 4096)
    struct.pack_into(f"={PDPT_COUNT}Q", code.view, PML4 * 4096, *tables)
    count = 512 * PDPT_COUNT
    struct.pack_into(f"={count}Q", code.view, PDPT * 4096, *range(HUGE_ENTRY, count << 30, 1 << 30))
    return code


def _enter_long_mode(vcpu: Vcpu) -> None:
    """struct kvm_sregs of arch/x86/include/uapi/asm/kvm.h: flat segments, paging, EFER.LMA."""
    state = bytearray(312)
    fcntl.ioctl(vcpu.fd, kvm.GET_SREGS, state, True)
    # base, limit, selector, type, present, dpl, db, s, l, g
    code = struct.pack("=QIH8B2x", 0, 0xFFFFFFFF, 0x08, 11, 1, 0, 0, 1, 1, 1, 0)
    data = struct.pack("=QIH8B2x", 0, 0xFFFFFFFF, 0x10, 3, 1, 0, 1, 1, 0, 1, 0)
    state[: 6 * 24] = code + 5 * data
    cr0, cr4, efer = 0x80010033, 1 << 5, 1 << 8 | 1 << 10
    cr3 = vcpu.code_gpa + PML4 * 4096
    struct.pack_into("=QQQQQQ", state, 224, cr0, 0, cr3, cr4, 0, efer)
    fcntl.ioctl(vcpu.fd, kvm.SET_SREGS, bytes(state))


def _place(vcpu: Vcpu, payload: str) -> int:
    """Put a payload into the code memory; returns its address. vCPUs run one and the same at a time each."""
    if payload not in _payloads:
        _payloads[payload] = _load(payload)
    if vcpu.code is None:
        raise OSError(errno.EBADF, "the vCPU is closed")
    at = (PAYLOADS + list(_payloads).index(payload)) * 4096
    code = _payloads[payload]
    vcpu.code.view[at : at + len(code)] = code
    return vcpu.code_gpa + at


def _load(payload: str) -> bytes:
    """The payload's machine code: out of the image or, outside of it, from its source."""
    try:
        with open(f"{L2_DIRECTORY}/{payload}.bin", "rb") as binary:
            return binary.read()
    except FileNotFoundError:
        pass
    import subprocess
    import tempfile

    here = os.path.dirname(os.path.abspath(__file__))
    source = os.path.join(here, "..", "..", "guest-images", "l2", f"{payload}.S")
    with tempfile.TemporaryDirectory() as directory:
        obj, binary_path = f"{directory}/payload.o", f"{directory}/payload.bin"
        subprocess.run(["as", "--64", "-o", obj, source], check=True, capture_output=True)
        subprocess.run(["objcopy", "-O", "binary", obj, binary_path], check=True, capture_output=True)
        with open(binary_path, "rb") as binary:
            return binary.read()


OPERATIONS: dict[str, Callable[..., object]] = {
    "create": create,
    "run": run,
    "run_here": run_here,
    "resume": resume,
    "start": start,
    "wait": wait,
    "stop": stop,
    "registers": registers,
    "pre_fault": pre_fault,
}
