# SPDX-License-Identifier: GPL-2.0-or-later
"""A bench for a machine, and QEMU's stand-in to run it on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Accelerator, AcceleratorChoice, Bench, Image, Kernel, MachineSpec

FAKES = Path(__file__).resolve().parents[1] / "fakes"


def make_bench(directory: Path, machine: MachineSpec | None = None) -> Bench:
    """A bench whose kernels and image are names only: the stand-in does not open them."""

    def kernel(name: str) -> Kernel:
        place = directory / name
        return Kernel(name, name, "7.3.4", place / "vmlinux", place / "bzImage", place / ".config", ())

    return Bench(
        kernel=kernel("from"),
        next_kernel=kernel("to"),
        image=Image("basic", "basic", directory / "image.erofs"),
        machine=machine or MachineSpec(),
        choice=AcceleratorChoice(Accelerator.TCG, "a test"),
        directory=directory / "run",
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


@pytest.fixture
def fake_qemu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts the stand-in on PATH for QEMU; call it with the words that make it misbehave."""

    def install(*words: str) -> None:
        monkeypatch.setenv("FAKE_QEMU", " ".join(words))

    monkeypatch.setenv("PATH", f"{FAKES}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_QEMU_PYTHON", sys.executable)
    install()
    return install
