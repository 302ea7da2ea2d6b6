# SPDX-License-Identifier: GPL-2.0-or-later
"""What a live update of a guest_memfd costs, beside a memfd with as many pages: `luh bench preserve`.

The memfd has no holes: mainline's handler fills them (mm/memfd_luo.c), with 64 GiB until the host is out of
memory. So it is as long as it has pages, and the comparison is about pages, which suits it better.

Not scenarios that pass or fail: they record figures, which harness/costs.py collects. Both files are in the
same host, under the same kernel in the same boot; each is measured while the other one rests. Every figure
is the time of single system calls in the host (harness/agent/measure.py), and is recorded as
`KIND.QUANTITY.REPETITION_UNIT`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.case import GiB, KiB, MiB
from harness.deadline import Deadline
from harness.guest.resources import File, GuestMemfd, LiveUpdateSession, Memfd, Vm
from harness.guest.session import Session

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd", "preserve_memfd")

PAGE = 4 * KiB
REPETITIONS = int(os.environ.get("LUH_REPETITIONS", "3"))
# The slowest step is to make a million scattered pages.
STEP_SECONDS = 120.0
# What the host needs besides the two files.
HOST_MEMORY = 1280 * MiB
VM, MEMORY = 1, 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The pages of a file: `count` of them, every `stride`-th.

    scattered: no two of them that are neighbours in the file are neighbours in physical memory.
    """

    size: int
    count: int
    stride: int = 1
    scattered: bool = False

    @property
    def packed(self) -> Shape:
        """As many pages without holes."""
        return Shape(self.count * PAGE, self.count)

    @property
    def last(self) -> int:
        return (self.count - 1) * self.stride

    @property
    def memory(self) -> int:
        """What the machine needs for two files of this shape, in bytes."""
        return HOST_MEMORY + 2 * self.count * PAGE + self.count * 64


def full(size: int) -> Shape:
    return Shape(size, size // PAGE)


def half(size: int) -> Shape:
    return Shape(size, size // PAGE // 2, stride=2)


def scattered(size: int) -> Shape:
    return Shape(size, size // PAGE, scattered=True)


def sparse(size: int, count: int) -> Shape:
    return Shape(size, count, stride=size // PAGE // count)


SIZES = {"16M": 16 * MiB, "256M": 256 * MiB, "1G": 1 * GiB, "4G": 4 * GiB}
PATTERNS = {"contiguous": full, "half": half, "scattered": scattered}
SHAPES = {
    **{f"{pattern}-{name}": make(size) for pattern, make in PATTERNS.items() for name, size in SIZES.items()},
    **{f"sparse-{name}": sparse(size, 16) for name, size in {"1G": GiB, "64G": 64 * GiB}.items()},
}


@pytest.fixture(autouse=True)
def fits(shape: Shape) -> None:
    """Skips a shape that this machine has no memory for, before anything is booted."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (available,) = (int(line.split()[1]) * KiB for line in lines if line.startswith("MemAvailable:"))
    if shape.memory > available:
        pytest.skip(f"it needs {shape.memory // MiB} MiB, and this machine has {available // MiB} MiB free")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, id=name, marks=pytest.mark.machine(memory=shape.memory))
        for name, shape in SHAPES.items()
    ],
)
def test_cost(host: Session, shape: Shape) -> None:
    """Preserve, unpreserve, retrieve, first touch and the restart of a guest, several times each."""
    warm_up(host)
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(shape.size, mmap=True, init_shared=True)
    memfd = host.files.memfd(shape.packed.size)
    make_pages(host, shape, memory, memfd)
    for repetition in range(REPETITIONS):
        for kind, file in (("guest_memfd", memory), ("memfd", memfd)):
            measure_preserve(host, kind, file, repetition)
    for repetition in range(REPETITIONS):
        preserve(host, "guest", {VM: vm, MEMORY: memory})
        preserve(host, "file", {MEMORY: memfd})
        host = host.live_update()
        warm_up(host)
        memfd = measure_memfd(host, shape, repetition)
        vm, memory = measure_guest(host, shape, repetition)


def warm_up(host: Session) -> None:
    """Have everything imported, opened and cached that the first use would pay for."""
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(1 * MiB, mmap=True, init_shared=True)
    vm.bind(memory, gpa=0, slot=0)
    vcpu = vm.create_vcpu()
    vcpu.touch(memory, 0)
    session = preserve(host, "warm-up", {VM: vm, MEMORY: memory})
    host.call("measure.populate", file=host.files.memfd(PAGE), first=0, count=1)
    host.call("host.settle")
    for file in (session, vcpu, memory, vm):
        file.close()


def preserve(host: Session, name: str, files: dict[int, File]) -> LiveUpdateSession:
    session = host.liveupdate.create_session(name)
    for token, file in files.items():
        host.call("measure.preserve", patience(host), session=session, file=file, token=token)
    return session


def make_pages(host: Session, shape: Shape, memory: GuestMemfd, memfd: Memfd) -> None:
    """Allocate and write the shape's pages of both files: of each by itself, or of both in turn."""
    if shape.scattered:
        populate(host, shape, memory, other=memfd)
    else:
        populate(host, shape, memory)
        populate(host, shape.packed, memfd)


def populate(host: Session, shape: Shape, file: File, other: File | None = None) -> float:
    """Write to all pages of the shape; returns the seconds."""
    return float(
        host.call(
            "measure.populate",
            patience(host),
            file=file,
            first=0,
            count=shape.count,
            stride=shape.stride,
            other=other,
        )
    )


def measure_preserve(host: Session, kind: str, file: File, repetition: int) -> None:
    """PRESERVE_FD of one file in a session of its own, and the close of that session."""
    session = host.liveupdate.create_session("measured")
    deadline = patience(host)
    cost = host.call("measure.preserve", deadline, session=session, file=file, token=MEMORY)
    record(host, kind, "preserve", repetition, cost["seconds"])
    host.measure(f"{kind}.metadata.{repetition}_bytes", cost["bytes"])
    seconds = host.call("measure.close", deadline, file=session)
    record(host, kind, "unpreserve", repetition, seconds)


def measure_memfd(host: Session, shape: Shape, repetition: int) -> Memfd:
    """RETRIEVE_FD of the memfd, and the first touch of all its pages."""
    session = host.liveupdate.retrieve_session("file")
    result = host.call("measure.retrieve", patience(host), session=session, token=MEMORY)
    file = Memfd(host, result["file"]["handle"])
    record(host, "memfd", "retrieve", repetition, result["seconds"])
    record(host, "memfd", "touch", repetition, populate(host, shape.packed, file))
    session.finish()
    session.close()
    return file


def measure_guest(host: Session, shape: Shape, repetition: int) -> tuple[Vm, GuestMemfd]:
    """RETRIEVE_FD of the VM and its memory, the restart of the guest, and the first touch of all pages."""
    session = host.liveupdate.retrieve_session("guest")
    result = host.call(
        "measure.restart",
        patience(host),
        session=session,
        vm_token=VM,
        memory_token=MEMORY,
        page=shape.last,
    )
    vm, memory = Vm(host, result["vm"]["handle"]), GuestMemfd(host, result["memory"]["handle"])
    for quantity in ("retrieve_vm", "retrieve", "bind", "create", "run", "to_guest"):
        record(host, "guest_memfd", quantity, repetition, result[quantity])
    record(host, "guest_memfd", "touch", repetition, populate(host, shape, memory))
    File(host, result["vcpu"]["handle"]).close()
    session.finish()
    session.close()
    return vm, memory


def record(host: Session, kind: str, quantity: str, repetition: int, seconds: float) -> None:
    host.measure(f"{kind}.{quantity}.{repetition}_ms", seconds * 1000)


def patience(host: Session) -> Deadline:
    return host.deadline(STEP_SECONDS, "a step whose time is measured")
