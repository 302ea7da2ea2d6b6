# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine can run the host under test with KVM, with KVM working inside it as well.

/dev/kvm alone proves neither, so the processor, the module and, last, a vCPU that really runs are asked.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import command
from harness.case import Accelerator, AcceleratorChoice
from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError, UsageError

PROOF_SECONDS = 20.0
MODULES = {"svm": "kvm_amd", "vmx": "kvm_intel"}


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the answers are on this machine; a test has others.

    proof: a command that runs a vCPU, prints {"ok": bool, "reason": str} and exits with 0 if it ran.
    """

    device: Path = Path("/dev/kvm")
    processor: Path = Path("/proc/cpuinfo")
    modules: Path = Path("/sys/module")
    proof: tuple[str, ...] = (sys.executable, "-m", "harness.agent", "--probe-kvm")


HERE = Facts()


def choose(requested: Accelerator, deadline: Deadline, facts: Facts = HERE) -> AcceleratorChoice:
    """The accelerator to use, with the reason.

    AUTO is KVM where nesting is proved, else TCG. Raises UsageError where KVM is requested and impossible.
    """
    if requested is Accelerator.TCG:
        return AcceleratorChoice(Accelerator.TCG, "asked for", _tsc(facts.processor))
    obstacle = _obstacle(facts, deadline)
    if not obstacle:
        return AcceleratorChoice(Accelerator.KVM, "nesting is on and a vCPU ran")
    if requested is Accelerator.KVM:
        raise UsageError(
            f"KVM cannot be used on this machine: {obstacle}",
            hint="leave the choice to the harness (--accel auto), or see `luh doctor`",
        )
    return AcceleratorChoice(Accelerator.TCG, obstacle, _tsc(facts.processor))


def _obstacle(facts: Facts, deadline: Deadline) -> str:
    """What stands in the way of KVM, or ""; the cheapest questions first."""
    if not facts.device.exists():
        return f"{facts.device} is not there"
    if not os.access(facts.device, os.R_OK | os.W_OK):
        return f"{facts.device} is there, but not for this user"
    extension = _extension(facts.processor)
    if not extension:
        return f"{facts.device} is there, but the CPU has neither svm nor vmx"
    module = MODULES[extension]
    if not _nested(facts.modules / module):
        return (
            f"{facts.device} is there, but the module {module} does not nest (its parameter `nested` is off)"
        )
    return _disproof(facts.proof, deadline)


def _extension(processor: Path) -> str:
    """The CPU's virtualization extension as the flags of /proc/cpuinfo name it, or ""."""
    for line in processor.read_text().splitlines():
        if line.startswith("flags"):
            return next((name for name in MODULES if name in line.split()), "")
    return ""


def _tsc(processor: Path) -> int:
    """The kHz of this machine's TSC, which is what an emulated CPU counts as well (QEMU's cpu_get_ticks()).

    A kernel whose TSC is constant takes its bogomips from it: two for each MHz (arch/x86/kernel/tsc.c). 0
    where that is not so.
    """
    lines = (line.partition(":") for line in processor.read_text().partition("\n\n")[0].splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    constant = "constant_tsc" in values.get("flags", "").split()
    return round(float(values.get("bogomips", "0")) * 500) if constant else 0


def _nested(module: Path) -> bool:
    parameter = module / "parameters" / "nested"
    return parameter.exists() and parameter.read_text().strip() in ("Y", "1")


def _disproof(proof: tuple[str, ...], deadline: Deadline) -> str:
    """ "" if a vCPU ran here, else what became of it."""
    budget = Deadline(min(deadline.at, Deadline.after(PROOF_SECONDS, "").at), "the proof that KVM works")
    path = os.pathsep.join((str(Path(harness.__file__).parent.parent), os.environ.get("PYTHONPATH", "")))
    try:
        done = command.run(proof, deadline=budget, env={"PYTHONPATH": path.rstrip(os.pathsep)}, check=False)
    except DeadlineError:
        return "a vCPU of this machine's KVM does not come back"
    except InfraError as error:
        return error.message
    return "" if done.status == 0 else f"KVM does not run a vCPU here: {_reason(done)}"


def _reason(done: command.Completed) -> str:
    lines = done.output.splitlines() or [f"status {done.status}"]
    try:
        return str(json.loads(lines[-1])["reason"])
    except (ValueError, KeyError, TypeError):
        return lines[-1]
