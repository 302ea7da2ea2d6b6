# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM only where nesting is proved, TCG with a reason elsewhere."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import Accelerator
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.machine.probe import Facts, choose


def deadline() -> Deadline:
    return Deadline.after(20, "a test")


def proof(status: int, **result: object) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({json.dumps(result)!r}); raise SystemExit({status})")


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """A machine where everything is as it should be."""
    (tmp_path / "kvm").touch()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu de svm avx\n")
    (tmp_path / "kvm_amd" / "parameters").mkdir(parents=True)
    (tmp_path / "kvm_amd" / "parameters" / "nested").write_text("1\n")
    return Facts(tmp_path / "kvm", tmp_path / "cpuinfo", tmp_path, proof(0, ok=True, reason="a vCPU ran"))


def refused(facts: Facts) -> str:
    """The reason for TCG, which is also what a user hears who insists on KVM."""
    choice = choose(Accelerator.AUTO, deadline(), facts)
    assert choice.accelerator is Accelerator.TCG
    with pytest.raises(UsageError) as caught:
        choose(Accelerator.KVM, deadline(), facts)
    assert choice.reason in caught.value.message
    assert caught.value.hint
    return choice.reason


@pytest.mark.parametrize("requested", [Accelerator.AUTO, Accelerator.KVM])
def test_kvm_where_a_vcpu_ran(facts: Facts, requested: Accelerator) -> None:
    choice = choose(requested, deadline(), facts)
    assert (choice.accelerator, choice.reason) == (Accelerator.KVM, "nesting is on and a vCPU ran")


def test_tcg_where_it_is_asked_for(facts: Facts) -> None:
    choice = choose(Accelerator.TCG, deadline(), facts)
    assert (choice.accelerator, choice.reason) == (Accelerator.TCG, "asked for")


@pytest.mark.parametrize(
    ("flags", "tsc"), [("fpu constant_tsc", 2445400), ("fpu", 0)], ids=["constant", "varying"]
)
def test_emulated_cpus_count_as_this_machine_does(facts: Facts, flags: str, tsc: int) -> None:
    cpu = "processor\t: {}\nflags\t\t: {}\ncpu MHz\t\t: 3100.000\nbogomips\t: 4890.80\n\n"
    facts.processor.write_text(cpu.format(0, flags) + cpu.format(1, flags))
    assert choose(Accelerator.TCG, deadline(), facts).tsc == tsc


def test_no_device(facts: Facts) -> None:
    facts.device.unlink()
    assert refused(facts) == f"{facts.device} is not there"


def test_a_device_without_a_cpu_that_virtualizes(facts: Facts) -> None:
    facts.processor.write_text("flags\t\t: fpu vmxish svmish\n")
    assert refused(facts) == f"{facts.device} is there, but the CPU has neither svm nor vmx"


@pytest.mark.parametrize("value", ["0", "N", ""])
def test_a_module_that_does_not_nest(facts: Facts, value: str) -> None:
    (facts.modules / "kvm_amd/parameters/nested").write_text(f"{value}\n")
    assert "kvm_amd does not nest" in refused(facts)


def test_intel_is_asked_in_its_own_module(facts: Facts) -> None:
    facts.processor.write_text("flags\t\t: fpu vmx\n")
    assert "kvm_intel does not nest" in refused(facts)
    (facts.modules / "kvm_intel/parameters").mkdir(parents=True)
    (facts.modules / "kvm_intel/parameters/nested").write_text("Y\n")
    assert choose(Accelerator.AUTO, deadline(), facts).accelerator is Accelerator.KVM


def test_a_vcpu_that_does_not_run(facts: Facts) -> None:
    failing = replace(facts, proof=proof(1, ok=False, reason="[Errno 22] KVM_RUN"))
    assert refused(failing) == "KVM does not run a vCPU here: [Errno 22] KVM_RUN"


def test_a_proof_that_breaks(facts: Facts) -> None:
    broken = replace(facts, proof=(sys.executable, "-c", "raise SystemExit('no ctypes')"))
    assert refused(broken) == "KVM does not run a vCPU here: no ctypes"


def test_a_vcpu_that_hangs(facts: Facts) -> None:
    hanging = replace(facts, proof=("sleep", "60"))
    choice = choose(Accelerator.AUTO, Deadline.after(0.2, "a test"), hanging)
    assert "does not come back" in choice.reason


def test_the_agent_is_the_proof(facts: Facts) -> None:
    """The real one gives an answer on this machine, whatever it is."""
    choice = choose(Accelerator.AUTO, deadline(), replace(facts, proof=Facts().proof))
    assert choice.accelerator is Accelerator.KVM or choice.reason.startswith("KVM does not run a vCPU here: ")
    assert "No module" not in choice.reason
