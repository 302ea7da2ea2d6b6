# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts to report on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import (
    Accelerator,
    AcceleratorChoice,
    Case,
    Kernel,
    KernelDefinition,
    LiveUpdate,
    MachineSpec,
    MiB,
    Outcome,
    Phase,
    ScenarioResult,
    Verdict,
)


@pytest.fixture
def case() -> Case:
    definition = KernelDefinition("default", (), (), ())
    return Case(definition, definition, "minimal", MachineSpec(), ("test_basic.py",), seed=7)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    config = tmp_path / "config"
    config.write_text("CONFIG_KVM=y\n")
    return Kernel("default", "d1", "7.3.4", Path("/vmlinux"), Path("/bzImage"), config, ("one", "two"))


@pytest.fixture
def verdict(tmp_path: Path, kernel: Kernel) -> Verdict:
    """One scenario of each outcome."""
    directory = tmp_path / "20261121T022535Z-ab12"
    directory.mkdir()
    passed = ScenarioResult(
        "test_basic.py::test_survives[vm,memory]",
        Outcome.PASS,
        6.25,
        rules=("K3",),
        phases=(Phase("boot", 0.5, 1.9),),
        updates=(LiveUpdate("7.3.4", "7.3.4", "a", "b", 1, 2.1),),
        bytes_verified=21 * MiB,
    )
    story = "line one\nline two \x1b[31m"
    return Verdict(
        Outcome.BROKEN,
        "QEMU died",
        directory,
        phases=(Phase("build", 0.0, 243.0), Phase("scenarios", 243.0, 20.0)),
        scenarios=(
            passed,
            replace(
                passed, name="test_a.py::test_fails", outcome=Outcome.FAIL, reason="page 3", detail=story
            ),
            replace(passed, name="test_a.py::test_skips", outcome=Outcome.SKIP, reason="no\nVM"),
            replace(passed, name="test_a.py::test_breaks", outcome=Outcome.BROKEN, reason="QEMU died"),
        ),
        kernel=kernel,
        next_kernel=kernel,
        choice=AcceleratorChoice(Accelerator.TCG, "this machine has no /dev/kvm"),
    )
