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
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import KiB, MiB
from harness.costs import PAGE, REPETITIONS, SHAPES, Shape
from harness.deadline import Deadline
from harness.guest.resources import File, GuestMemfd, LiveUpdateSession, Memfd, Vm
from harness.guest.session import Session

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd", "preserve_memfd")

COUNT = int(os.environ.get(REPETITIONS, "3"))
# The slowest step is to make a million scattered pages.
STEP_SECONDS = 120.0
# What the host needs besides the two files.
HOST_MEMORY = 1280 * MiB
VM, MEMORY = 1, 2


def machine(shape: Shape) -> int:
    """The memory of a machine for two files of this shape, in bytes: their pages, and LUO's lists of them."""
    return HOST_MEMORY + 2 * shape.count * PAGE + 64 * shape.count


@pytest.fixture(autouse=True)
def fits(shape: Shape) -> None:
    """Skips a shape that this machine has no memory for, before anything is booted."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (available,) = (int(line.split()[1]) * KiB for line in lines if line.startswith("MemAvailable:"))
    if machine(shape) > available:
        pytest.skip(f"it needs {machine(shape) // MiB} MiB, and this machine has {available // MiB} MiB free")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, id=shape.name, marks=pytest.mark.machine(memory=machine(shape)))
        for shape in SHAPES
    ],
)
def test_cost(host: Session, shape: Shape) -> None:
    """Preserve, unpreserve, retrieve, first touch and the restart of a guest, several times each."""
    warm_up(host)
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(shape.size, mmap=True, init_shared=True)
    memfd = host.files.memfd(shape.packed.size)
    make_pages(host, shape, memory)
    make_pages(host, shape.packed, memfd)
    for repetition in range(COUNT):
        for kind, file in (("guest_memfd", memory), ("memfd", memfd)):
            measure_preserve(host, kind, file, repetition)
    for repetition in range(COUNT):
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


def make_pages(host: Session, shape: Shape, file: File) -> None:
    """Allocate and write the shape's pages.

    Scattered: first the even ones, then the odd ones, so that neighbours in the file come from far apart. Two
    files in turn would not do: what is movable and what is not comes from different places.
    """
    if shape.scattered:
        for first in range(2):
            populate(host, replace(shape, count=shape.count // 2, stride=2), file, first)
    else:
        populate(host, shape, file)


def populate(host: Session, shape: Shape, file: File, first: int = 0) -> float:
    """Write to all pages of the shape; returns the seconds."""
    return float(
        host.call(
            "measure.populate",
            patience(host),
            file=file,
            first=first,
            count=shape.count,
            stride=shape.stride,
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
