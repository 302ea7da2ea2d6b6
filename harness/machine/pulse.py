# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the CPUs still get on, seen from outside: what no kernel can say of itself once it hangs.

A CPU that loops forever shows the same frame whenever one looks: the stack pointer and the registers that
a function keeps for its caller (System V ABI) stay as they are, while everything that makes progress changes
them. Pure; the samples are what QEMU's monitor answers to `info registers -a`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

INTERVAL_SECONDS = 1.0
# Nobody keeps interrupts off for so long, nor loops in one frame of the kernel with them on.
OFF_SECONDS = 3.0
ON_SECONDS = 12.0
# Of the samples with interrupts on: the others found the CPU in an interrupt.
MOST = 0.75

KERNEL_HALF = 1 << 63
INTERRUPT_FLAG = 1 << 9

_KEPT = ("RSP", "RBX", "RBP", "R12", "R13", "R14", "R15")
_CPU = re.compile(r"^CPU#(\d+)", re.MULTILINE)
_REGISTER = re.compile(r"\b(R[A-Z0-9]{1,2}) ?=([0-9a-f]{8,16})\b")
_FLAG = re.compile(r"\b(CPL|HLT)=(\d)")


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU at one moment."""

    number: int
    address: int
    interrupts: bool
    halted: bool
    privileged: bool
    frame: tuple[int, ...]

    @property
    def dead(self) -> bool:
        """Whether it waits for an interrupt that it does not take."""
        return self.halted and not self.interrupts


@dataclass(frozen=True, slots=True)
class Sample:
    """All CPUs. at: seconds, on any clock."""

    at: float
    cpus: tuple[Cpu, ...]


@dataclass(frozen=True, slots=True)
class Hang:
    """What will not go on: one CPU, or (number -1) all of them, halted."""

    number: int
    reason: str


def read(at: float, text: str) -> Sample:
    """The sample in the monitor's answer; CPUs in another form than that of x86-64 are left out."""
    parts = _CPU.split(text)[1:]
    cpus = (_cpu(int(number), body) for number, body in zip(parts[::2], parts[1::2], strict=True))
    return Sample(at, tuple(cpu for cpu in cpus if cpu))


def _cpu(number: int, body: str) -> Cpu | None:
    registers = {name: int(value, 16) for name, value in _REGISTER.findall(body)}
    flags = {name: int(value) for name, value in _FLAG.findall(body)}
    if not {"RIP", "RFL", *_KEPT} <= registers.keys():
        return None
    return Cpu(
        number=number,
        address=registers["RIP"],
        interrupts=bool(registers["RFL"] & INTERRUPT_FLAG),
        halted=bool(flags.get("HLT")),
        privileged=flags.get("CPL") == 0,
        frame=tuple(registers[name] for name in _KEPT),
    )


def hang(samples: Sequence[Sample], *, between: bool, patience: float) -> Hang | None:
    """What hangs, judging by samples in the order of their time; None while anything may still go on.

    between: whether one kernel has gone and the next has not spoken, so that code at low addresses is ours
    (purgatory, the decompressor) and not a guest's. patience: how many times slower than usual the kernel is,
    and the machine that it runs on: a CPU that gets no processor looks like one that loops.
    """
    if not samples:
        return None
    now = samples[-1].at
    if _all(
        samples,
        now - OFF_SECONDS * patience,
        lambda sample: bool(sample.cpus) and all(cpu.dead for cpu in sample.cpus),
    ):
        return Hang(-1, "all CPUs are halted with interrupts off")
    for cpu in samples[-1].cpus:
        if cpu.halted or not cpu.privileged or not (between or cpu.address >= KERNEL_HALF):
            continue
        history = [(sample.at, one) for sample in samples for one in sample.cpus if one.number == cpu.number]
        if _same(history, now - OFF_SECONDS * patience, cpu, interrupts=False):
            return Hang(cpu.number, f"CPU {cpu.number} loops with interrupts off")
        if _same(history, now - ON_SECONDS * patience, cpu, interrupts=True):
            return Hang(cpu.number, f"CPU {cpu.number} loops in the kernel")
    return None


def _all(samples: Sequence[Sample], since: float, holds: Callable[[Sample], bool]) -> bool:
    recent = [sample for sample in samples if sample.at >= since]
    return samples[0].at <= since and all(holds(sample) for sample in recent)


def _same(history: Sequence[tuple[float, Cpu]], since: float, cpu: Cpu, *, interrupts: bool) -> bool:
    """Whether the CPU was in one frame since then: always, or mostly where interrupts are on."""
    if history[0][0] > since:
        return False
    recent = [one for at, one in history if at >= since and not one.halted and one.privileged]
    if not interrupts:
        return all(one.frame == cpu.frame and not one.interrupts for one in recent) and bool(recent)
    total = sum(at >= since for at, _ in history)
    (frame, count), *_ = Counter(one.frame for one in recent).most_common(1) or [((), 0)]
    return frame == cpu.frame and count >= MOST * total
