# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects that live in the agent, as values here: VMs, guest_memfds, vCPUs, live update sessions.

Each belongs to its session and ends with it. Offsets, lengths and sizes are in bytes. What the kernel
refuses is a RemoteError with its errno.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from harness.case import MiB
from harness.guest.errors import Difference, MemoryDiffers, RemoteError, UnexpectedResult
from harness.guest.journal import Checked

if TYPE_CHECKING:
    from harness.deadline import Deadline
    from harness.guest.session import Session

PAGE = 4096
# include/uapi/asm-generic/mman-common.h
MADV_HWPOISON = 100
GUEST_MEMFD_FLAG_MMAP, GUEST_MEMFD_FLAG_INIT_SHARED = 1, 2

# The slowest that a range is filled or checked, on a machine whose time scale is 1.
BYTES_PER_SECOND = 64 * MiB
RANGE_SECONDS = 10.0
# What a call may take beyond the time that its vCPU is given.
STOP_SECONDS = 5.0
# A restored page comes with its first touch, or within about a second.
SETTLE_SECONDS, SETTLE_STEP = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class Resource:
    """Anything that the agent has and a handle names."""

    session: Session = field(repr=False)
    handle: int

    @staticmethod
    def _made(result: Mapping[str, int]) -> int:
        """The handle in a result that is an object."""
        return result["handle"]


@dataclass(frozen=True, slots=True)
class File(Resource):
    """An open file of the agent."""

    def close(self, *, unmap: bool = True) -> None:
        """Close the descriptor; with unmap=False the agent's mapping stays, and holds on to the file."""
        self.session.call("files.close", file=self, unmap=unmap)

    def dup(self) -> Self:
        return replace(self, handle=self._made(self.session.call("files.dup", file=self)))

    @property
    def size(self) -> int:
        return int(self.session.call("files.size", file=self))

    @property
    def link(self) -> str:
        """What the kernel calls it: "anon_inode:kvm-vm"."""
        return str(self.session.call("files.link", file=self))

    def fallocate(self, offset: int, length: int, *, mode: int | None = None) -> None:
        """Allocate (FALLOC_FL_KEEP_SIZE), or whatever a raw mode says."""
        if mode is None:
            self.session.call("files.allocate", file=self, offset=offset, length=length)
        else:
            self.session.call("files.fallocate", file=self, mode=mode, offset=offset, length=length)

    def allocate_every(self, step: int, count: int, length: int) -> None:
        """Allocate `count` ranges of that length, one every `step` bytes."""
        self.session.call("files.allocate", file=self, offset=0, length=length, step=step, count=count)

    def punch_hole(self, offset: int, length: int) -> None:
        self.session.call("files.punch_hole", file=self, offset=offset, length=length)

    def truncate(self, size: int) -> None:
        self.session.call("files.truncate", file=self, size=size)

    def ioctl(self, request: int, argument: int | bytes = 0) -> tuple[int, bytes]:
        """Any ioctl: its value, and the bytes as the kernel left them."""
        result = self.session.call("files.ioctl", file=self, request=request, argument=argument)
        return int(result["value"]), result["argument"]

    def read_fd(self, length: int, offset: int | None = None) -> bytes:
        """read(2) or pread(2)."""
        data: bytes = self.session.call("files.read", file=self, length=length, offset=offset)
        return data

    def write_fd(self, data: bytes, offset: int | None = None) -> int:
        """write(2) or pwrite(2)."""
        return int(self.session.call("files.write", file=self, data=data, offset=offset))


@dataclass(frozen=True, slots=True)
class Memory(File):
    """A file whose memory is filled and checked through the agent's mapping of it ("L1").

    length=None means up to the end. Touching a page that cannot be had is a RemoteError with EFAULT.
    """

    def fill(self, *, seed: int, offset: int = 0, length: int | None = None) -> None:
        """Write the pattern (agent/pattern.py): every page gets content of its own."""
        self._range("memory.fill", offset, length, seed=seed)

    def verify(
        self, *, seed: int, offset: int = 0, length: int | None = None, candidates: Sequence[int] = ()
    ) -> None:
        """Check the pattern; raises MemoryDiffers, which names the pages and says what they hold instead.

        candidates: other seeds that were used before, so that stale pages are recognised.
        """
        self._judge(
            self._range("memory.verify", offset, length, seed=seed, candidates=list(candidates)), offset
        )

    def verify_zero(self, *, offset: int = 0, length: int | None = None) -> None:
        """Check that there are only zeroes; raises MemoryDiffers."""
        self._judge(self._range("memory.verify_zero", offset, length), offset)

    def digest(self, *, offset: int = 0, length: int | None = None) -> str:
        return str(self._range("memory.digest", offset, length))

    def read(self, offset: int, length: int) -> bytes:
        data: bytes = self.session.call("memory.read", memory=self, offset=offset, length=length)
        return data

    def write(self, offset: int, data: bytes) -> None:
        self.session.call("memory.write", memory=self, offset=offset, data=data)

    def touch(self, offset: int, length: int = 1, *, store: bool = False) -> None:
        """Load a byte of every page of the range, and store it again if asked to."""
        self._range("memory.touch", offset, length, store=store)

    def swap_pages(self, first: int, second: int) -> None:
        """Exchange two pages' contents. Like the next two, for tests of the checker."""
        self.session.call("memory.swap_pages", memory=self, first=first, second=second)

    def flip(self, offset: int, mask: int = 0xFF) -> None:
        """Flip the bits of the mask in one byte."""
        self.session.call("memory.flip", memory=self, offset=offset, mask=mask)

    def drop_page(self, index: int) -> None:
        """Punch one page out."""
        self.session.call("memory.drop_page", memory=self, index=index)

    def allocated(self, *, offset: int = 0, length: int | None = None) -> list[tuple[int, int]]:
        """The runs of pages that are there, as (first page, number of pages); allocates nothing."""
        return [(first, count) for first, count in self._range("memory.allocated", offset, length)]

    def settled(
        self, expected: Sequence[tuple[int, int]], *, offset: int = 0, length: int | None = None
    ) -> None:
        """Wait until the pages that are there are these runs; raises UnexpectedResult where they never are.

        For a restored guest_memfd, whose pages may come into the page cache some time after the retrieve:
        whatever counts pages (`allocated`, memory.stat) has to wait for that.
        """
        deadline = self.session.deadline(SETTLE_SECONDS, "the restored pages")
        while (found := self.allocated(offset=offset, length=length)) != list(expected):
            if not deadline.remaining:
                raise UnexpectedResult(f"the pages that are there are {found}, not {list(expected)}")
            time.sleep(SETTLE_STEP)

    def words(self, offset: int, count: int, *, step: int = PAGE) -> list[int]:
        """The 64-bit words at every `step` bytes."""
        found: list[int] = self.session.call(
            "memory.words", memory=self, offset=offset, count=count, step=step
        )
        return found

    # ---- NUMA and advice (agent/placement.py) -----------------------------------

    def mbind(self, policy: str, *, nodes: int = 0, offset: int = 0, length: int | None = None) -> None:
        """mbind(2): "bind", "preferred", "interleave", "default"; nodes is a mask."""
        self._range("placement.bind", offset, length, policy=policy, nodes=nodes)

    def policy(self, offset: int = 0) -> str:
        return str(self.session.call("placement.policy", memory=self, offset=offset))

    def nodes(self, *, offset: int = 0, length: int | None = None) -> list[int]:
        """The NUMA node of each page of a range; each is touched for that."""
        found: list[int] = self._range("placement.nodes", offset, length)
        return found

    def advise(self, advice: int, offset: int, length: int = PAGE) -> None:
        """madvise(2) on a part of the agent's mapping."""
        self._range("placement.advise", offset, length, advice=advice)

    def poison(self, offset: int) -> None:
        """Have the kernel treat a page as broken; EINVAL without CONFIG_MEMORY_FAILURE."""
        self.advise(MADV_HWPOISON, offset)

    def _range(self, operation: str, offset: int, length: int | None, **arguments: Any) -> Any:
        size = self.size - offset if length is None else length
        deadline = _patience(self.session, operation, size)
        return self.session.call(operation, deadline, memory=self, offset=offset, length=size, **arguments)

    def _judge(self, report: dict[str, Any], offset: int) -> None:
        if report["pages_differing"]:
            differences = tuple(Difference.of(one) for one in report["differences"])
            raise MemoryDiffers("memory differs, seen by the host", report["pages_differing"], differences)
        _checked(self, "L1", offset, report["verified"])


@dataclass(frozen=True, slots=True)
class GuestMemfd(Memory):
    """A guest_memfd."""


@dataclass(frozen=True, slots=True)
class Memfd(Memory):
    """A memfd, or a file on tmpfs."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A memslot: gpa .. gpa + length shows the memory from offset on."""

    memory: GuestMemfd
    gpa: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Vm(File):
    """A VM. bindings: its memslots that scenarios made, by number; a restored VM has none (rule K4)."""

    bindings: dict[int, Binding] = field(default_factory=dict, repr=False, compare=False)

    def create_guest_memfd(self, size: int, *, mmap: bool = False, init_shared: bool = False) -> GuestMemfd:
        flags = GUEST_MEMFD_FLAG_MMAP * mmap | GUEST_MEMFD_FLAG_INIT_SHARED * init_shared
        made = self.session.call("kvm.create_guest_memfd", vm=self, size=size, flags=flags)
        return GuestMemfd(self.session, self._made(made))

    def bind(
        self,
        memory: GuestMemfd,
        *,
        gpa: int,
        slot: int,
        offset: int = 0,
        length: int | None = None,
        backing: Memory | None = None,
    ) -> None:
        """Make a memslot of a part of a guest_memfd.

        backing: has the slot's shared memory, where that is not the guest_memfd itself.
        """
        size = memory.size - offset if length is None else length
        self.session.call(
            "kvm.set_memory",
            vm=self,
            slot=slot,
            gpa=gpa,
            size=size,
            memory=memory,
            offset=offset,
            backing=backing,
        )
        self.bindings[slot] = Binding(memory, gpa, offset, size)

    def unbind(self, slot: int) -> None:
        """Delete a memslot."""
        self.session.call("kvm.set_memory", vm=self, slot=slot, gpa=0, size=0)
        self.bindings.pop(slot, None)

    def create_vcpu(self, number: int = 0) -> Vcpu:
        return Vcpu(self.session, self._made(self.session.call("vcpu.create", vm=self, number=number)), self)

    def check_extension(self, capability: int) -> int:
        return int(self.session.call("kvm.check_extension", vm=self, capability=capability))

    def set_memory_attributes(self, gpa: int, size: int, attributes: int) -> None:
        self.session.call("kvm.set_memory_attributes", vm=self, gpa=gpa, size=size, attributes=attributes)

    def enable_cap(self, capability: int, argument: int = 0) -> None:
        self.session.call("kvm.enable_cap", file=self, capability=capability, argument=argument)

    def stats(self) -> File:
        return File(self.session, self._made(self.session.call("kvm.stats", file=self)))

    def address(self, memory: GuestMemfd, offset: int) -> int:
        """Where the guest sees this byte of the memory; UnexpectedResult where no memslot shows it."""
        for binding in self.bindings.values():
            start = offset - binding.offset
            if binding.memory.handle == memory.handle and 0 <= start < binding.length:
                return binding.gpa + start
        raise UnexpectedResult(f"no memslot of the VM shows offset {offset:#x} of the memory: bind it first")


@dataclass(frozen=True, slots=True)
class VcpuExit:
    """How a run of a vCPU ended. reason: "hlt", "memory_fault", "io", "mmio", "shutdown", "stopped", ...

    errno: of KVM_RUN, 0 where it gave none. fault_*: of a memory_fault. details: of io, mmio and others.
    """

    reason: str
    errno: int
    registers: Mapping[str, int]
    fault_gpa: int = 0
    fault_size: int = 0
    fault_flags: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, report: dict[str, Any]) -> VcpuExit:
        details = report.get(report["reason"]) or {}
        fault = details if report["reason"] == "memory_fault" else {}
        return cls(
            reason=report["reason"],
            errno=report["errno"],
            registers=report["registers"],
            fault_gpa=fault.get("gpa", 0),
            fault_size=fault.get("size", 0),
            fault_flags=fault.get("flags", 0),
            details=details,
        )


@dataclass(frozen=True, slots=True)
class Vcpu(File):
    """A vCPU, which runs the payloads of guest-images/l2/ on the memory that is bound to its VM ("L2")."""

    vm: Vm

    def fill(self, memory: GuestMemfd, *, seed: int, offset: int = 0, length: int | None = None) -> None:
        """Have the guest write the pattern; offset and length are those of the memory, in whole pages."""
        self._pattern(memory, seed, offset, length, check=False)

    def verify(self, memory: GuestMemfd, *, seed: int, offset: int = 0, length: int | None = None) -> None:
        """Have the guest check the pattern; raises MemoryDiffers with the first word that differs."""
        registers, size = self._pattern(memory, seed, offset, length, check=True)
        if registers["rax"]:
            page = registers["rdx"]
            difference = Difference(
                page,
                page * PAGE + registers["rbx"] * 8,
                registers["r8"].to_bytes(8, "little"),
                registers["r9"].to_bytes(8, "little"),
                f"word {registers['rbx']} differs",
            )
            raise MemoryDiffers("memory differs, seen by the guest", 1, (difference,))
        _checked(memory, "L2", offset, size)

    def touch(self, memory: GuestMemfd, offset: int, *, pages: int = 1, store: int | None = None) -> VcpuExit:
        """Have the guest load a word of each page, or store one there; the end may be any."""
        gpa = self.vm.address(memory, offset)
        return self.run("touch", rdi=gpa, rsi=pages, rdx=store or 0, rax=int(store is not None))

    def run(self, payload: str, *, seconds: float = RANGE_SECONDS, **registers: int) -> VcpuExit:
        """Run a payload until the vCPU leaves the guest, at most so many seconds (scaled)."""
        return self._exit("vcpu.run", seconds, payload=payload, registers=registers)

    def start(self, payload: str, **registers: int) -> None:
        """Begin to run a payload beside everything else; end with `stop` or `wait`."""
        self.session.call("vcpu.start", vcpu=self, payload=payload, registers=registers)

    def wait(self, *, seconds: float = RANGE_SECONDS) -> VcpuExit:
        return self._exit("vcpu.wait", seconds)

    def resume(self, *, seconds: float = RANGE_SECONDS) -> VcpuExit:
        """Go on where the vCPU stopped."""
        return self._exit("vcpu.resume", seconds)

    def stop(self) -> VcpuExit | None:
        """Make the vCPU leave the guest; None if it was not running."""
        report = self.session.call("vcpu.stop", vcpu=self)
        return VcpuExit.of(report) if report else None

    def pre_fault(self, gpa: int, size: int) -> int:
        """KVM_PRE_FAULT_MEMORY; returns the number of bytes that it left undone."""
        return int(self.session.call("vcpu.pre_fault", vcpu=self, gpa=gpa, size=size)["size"])

    def stats(self) -> File:
        return File(self.session, self._made(self.session.call("kvm.stats", file=self)))

    def _exit(self, operation: str, seconds: float, **arguments: Any) -> VcpuExit:
        given = seconds * self.session.time_scale
        deadline = self.session.deadline(seconds + STOP_SECONDS, operation)
        return VcpuExit.of(self.session.call(operation, deadline, vcpu=self, seconds=given, **arguments))

    def _pattern(
        self, memory: GuestMemfd, seed: int, offset: int, length: int | None, *, check: bool
    ) -> tuple[Mapping[str, int], int]:
        size = memory.size - offset if length is None else length
        end = self.run(
            "pattern",
            seconds=RANGE_SECONDS + size / BYTES_PER_SECOND,
            rdi=self.vm.address(memory, offset),
            rsi=size // PAGE,
            rdx=offset // PAGE,
            rcx=seed,
            rax=int(check),
        )
        if end.errno:
            raise RemoteError("KVM_RUN", end.errno, detail=repr(end))
        if end.reason != "hlt":
            raise UnexpectedResult(f"the vCPU ended with {end.reason}", detail=repr(end))
        return end.registers, size


@dataclass(frozen=True, slots=True)
class LiveUpdateSession(File):
    """A session of the Live Update Orchestrator, outgoing or incoming."""

    def preserve(self, file: File, *, token: int) -> None:
        self.session.call("liveupdate.preserve", session=self, file=file, token=token)

    def retrieve_vm(self, token: int) -> Vm:
        return Vm(self.session, self._retrieve(token, "vm"))

    def retrieve_guest_memfd(self, token: int) -> GuestMemfd:
        return GuestMemfd(self.session, self._retrieve(token))

    def retrieve_memfd(self, token: int) -> Memfd:
        return Memfd(self.session, self._retrieve(token))

    def retrieve(self, token: int) -> File:
        """Whatever the token stands for."""
        return File(self.session, self._retrieve(token))

    def finish(self) -> None:
        self.session.call("liveupdate.finish", session=self)

    @property
    def name(self) -> str:
        return str(self.session.call("liveupdate.get_name", session=self))

    def _retrieve(self, token: int, kind: str = "file") -> int:
        return self._made(self.session.call("liveupdate.retrieve", session=self, token=token, kind=kind))


@dataclass(frozen=True, slots=True)
class LiveUpdateDevice:
    """/dev/liveupdate, which the agent opens when it is first needed."""

    session: Session

    def create_session(self, name: str) -> LiveUpdateSession:
        return self._named("liveupdate.create_session", name)

    def retrieve_session(self, name: str) -> LiveUpdateSession:
        return self._named("liveupdate.retrieve_session", name)

    def open(self) -> None:
        self.session.call("liveupdate.open_device")

    def close(self) -> None:
        """Give it back, so that another process can open it; sessions stay."""
        self.session.call("liveupdate.close_device")

    @property
    def device(self) -> File:
        """Another descriptor of the open device."""
        return File(self.session, self.session.call("liveupdate.device")["handle"])

    def _named(self, operation: str, name: str) -> LiveUpdateSession:
        return LiveUpdateSession(self.session, self.session.call(operation, name=name)["handle"])


@dataclass(frozen=True, slots=True)
class Kvm:
    """/dev/kvm."""

    session: Session

    def create_vm(self, *, type: int = 0) -> Vm:
        """type: 0 is an ordinary VM, 1 a software-protected one (KVM_X86_SW_PROTECTED_VM)."""
        return Vm(self.session, self.session.call("kvm.create_vm", type=type)["handle"])

    def check_extension(self, capability: int) -> int:
        return int(self.session.call("kvm.check_extension", capability=capability))


@dataclass(frozen=True, slots=True)
class Files:
    """Files that have nothing to do with VMs."""

    session: Session

    def open(self, path: str, flags: int = 2) -> File:
        """open(2); flags are O_RDWR if not given."""
        return File(self.session, self.session.call("files.open", path=path, flags=flags)["handle"])

    def memfd(self, size: int) -> Memfd:
        return Memfd(self.session, self.session.call("files.memfd_create", size=size)["handle"])

    def pipe(self) -> tuple[File, File]:
        """The end to read from and the end to write to."""
        source, sink = self.session.call("files.pipe")
        return File(self.session, source["handle"]), File(self.session, sink["handle"])

    def socketpair(self) -> tuple[File, File]:
        one, other = self.session.call("files.socketpair")
        return File(self.session, one["handle"]), File(self.session, other["handle"])

    def epoll(self) -> File:
        return File(self.session, self.session.call("files.epoll")["handle"])

    def eventfd(self) -> File:
        return File(self.session, self.session.call("files.eventfd")["handle"])

    def text(self, path: str) -> str:
        """All of a text file, such as those of /proc."""
        return str(self.session.call("files.text", path=path))

    def put_text(self, path: str, text: str) -> None:
        """Write a text to a file that is there, such as those of /sys, in one write(2)."""
        self.session.call("files.put_text", path=path, text=text)

    def mkdir(self, path: str) -> None:
        self.session.call("files.mkdir", path=path)

    def rmdir(self, path: str) -> None:
        self.session.call("files.rmdir", path=path)

    def unlink(self, path: str) -> None:
        self.session.call("files.unlink", path=path)

    def adopt(self, descriptor: int) -> File:
        """A descriptor that a raw ioctl returned."""
        return File(self.session, self.session.call("files.adopt", fd=descriptor)["handle"])


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kernel can do. by_name: "" where it can, else the error that it answered.

    Names: kvm, guest_memfd, liveupdate, preserve_memfd, preserve_vm, preserve_guest_memfd, fault_injection.
    """

    by_name: Mapping[str, str]

    def missing(self, names: Iterable[str]) -> str:
        """Why a scenario that needs these cannot run here, in one line; "" if it can."""
        lacks = [f"{_words(name)} ({reason})" for name in names if (reason := self.by_name[name])]
        return f"this kernel cannot {', nor '.join(lacks)}" if lacks else ""


def _words(capability: str) -> str:
    """ "preserve_vm" is "preserve a VM", "fault_injection" is "do fault injection"."""
    verb, _, what = capability.partition("_")
    if verb != "preserve":
        return f"do {capability.replace('_', ' ')}"
    return f"preserve a {what.replace('vm', 'VM')}"


def _patience(session: Session, operation: str, length: int) -> Deadline:
    return session.deadline(RANGE_SECONDS + length / BYTES_PER_SECOND, operation)


def _checked(memory: Memory, verifier: str, offset: int, length: int) -> None:
    session = memory.session
    session.journal.record(
        Checked(verifier, session.identity.boot_id, memory.handle, offset, length, session.updated)
    )
