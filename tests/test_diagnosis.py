# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that has ended becomes findings with the lines of the kernel that each is of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness import diagnosis
from harness.case import Bench, Death, Ending, Finding, Kernel
from harness.deadline import Deadline
from harness.machine.console import Line
from harness.machine.host import HostMachine
from tests.kernel import built
from tests.kernel.built import CALL, TRAP, address, after, place

BANNER = "Linux version 7.3.4"
KEXEC = "kexec_core: Starting new kernel"


class Ended(HostMachine):
    """A machine of which only the console and the end are left."""

    def __init__(self, bench: Bench, lines: tuple[str, ...], ending: Ending | None = None) -> None:
        super().__init__(bench)
        self._lines = tuple(Line(float(number), text) for number, text in enumerate(lines))
        self.ending = ending

    @property
    def console(self) -> tuple[Line, ...]:
        return self._lines

    def _start(self, stack: ExitStack) -> None:
        raise NotImplementedError

    def send(self, data: bytes, deadline: Deadline) -> None:
        raise NotImplementedError

    def receive(self, deadline: Deadline) -> bytes:
        raise NotImplementedError

    def keep_memory(self) -> None:
        raise NotImplementedError


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return built.build(tmp_path / "kernel")


@pytest.fixture
def bench(paper_bench: Bench, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("LUH_STORE", str(tmp_path / "store"))
    return replace(paper_bench, kernel=kernel, next_kernel=kernel)


def oops(kernel: Kernel) -> tuple[str, ...]:
    """What a kernel says of a trap in gmem_fault that gmem_populate has called."""
    return (
        "Oops: invalid opcode: 0000 [#1] SMP",
        f"RIP: 0010:{place(kernel, 'gmem_fault', 'ud2')}",
        "Call Trace:",
        f" {after(kernel, 'gmem_populate', 'call')}",
        "---[ end trace 0000000000000000 ]---",
    )


def the(findings: tuple[Finding, ...]) -> Finding:
    (one,) = findings
    return one


def test_a_report_gets_the_lines_of_its_functions(bench: Bench, kernel: Kernel) -> None:
    machine = Ended(bench, (BANNER, *oops(kernel)))
    finding = the(diagnosis.findings(machine))
    assert finding.title == "invalid opcode in gmem_fault"
    # Its own file, rather than the header that it has the trap from.
    assert finding.place == TRAP[-1]
    assert finding.lines[1].endswith(f"({', '.join(TRAP)})")
    # Of a caller the call, rather than what it returns to.
    assert finding.lines[3].endswith(f"({CALL[0]})")
    assert diagnosis.reported(machine)


def test_each_kernel_is_asked_for_its_own_lines(bench: Bench, kernel: Kernel, tmp_path: Path) -> None:
    following = built.build(tmp_path / "following", before="\n" * 100)
    bench = replace(bench, next_kernel=following)
    lines = (BANNER, *oops(kernel), KEXEC, BANNER, *oops(following))
    first, second = diagnosis.findings(Ended(bench, lines))
    assert (first.kernel, first.place) == (0, "mm/gmem.c:15")
    assert (second.kernel, second.place) == (1, "mm/gmem.c:115")


def test_a_death_without_a_word_is_placed_by_its_address(bench: Bench, kernel: Kernel) -> None:
    trap = place(kernel, "gmem_fault", "ud2")
    ending = Ending(Death.RESET, 9.0, "", address(kernel, "gmem_fault") + trap.offset, ())
    machine = Ended(bench, (BANNER, "all is well"), ending)
    finding = the(diagnosis.findings(machine))
    assert finding.title == "triple fault in gmem_fault"
    assert finding.place == TRAP[-1]
    assert not diagnosis.reported(machine)


def test_what_kmemleak_said_at_the_end_is_the_last_kernels(bench: Bench, kernel: Kernel) -> None:
    leaks = (
        "unreferenced object 0xffff888003e5a000 (size 64):\n  backtrace (crc 0):\n"
        f"    {after(kernel, 'gmem_populate', 'call')}\n"
    )
    finding = the(diagnosis.findings(Ended(bench, (BANNER, KEXEC, BANNER)), leaks))
    assert (finding.kind, finding.title, finding.kernel) == ("kmemleak", "memory leak in gmem_populate", 1)
    assert finding.place == CALL[0]


def test_nothing_said_is_nothing_found(bench: Bench) -> None:
    assert diagnosis.findings(Ended(bench, (BANNER, "all is well"))) == ()
