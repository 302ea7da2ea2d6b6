# SPDX-License-Identifier: GPL-2.0-or-later
"""A small world for tests of the whole: a kernel of four files, QEMU's stand-in, scenarios in a folder."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Accelerator, AcceleratorChoice, Bench, Image, Kernel, MachineSpec
from harness.store import Store

# A job in the background of a script ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
DEFINITION = """\
source:
  - tree: {tree}
fragments: [{folder}/tiny.config]
"""


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that tests share which only want an image and a kernel to be there."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def tiny_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The definition of a kernel that is built in seconds and that only QEMU's stand-in boots."""
    folder = tmp_path_factory.mktemp("tiny")
    tree = Path(shutil.copytree(TESTS / "fakelinux", folder / "linux"))
    (folder / "tiny.config").write_text("CONFIG_EXPERT=y\n")
    definition = folder / "tiny.yaml"
    definition.write_text(DEFINITION.format(tree=tree, folder=folder))
    return definition


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts QEMU's stand-in on PATH; called with the words that make it misbehave (tests/fakes)."""

    def install(*words: str) -> None:
        monkeypatch.setenv("FAKE_QEMU", " ".join(words))

    monkeypatch.setenv("PATH", f"{TESTS / 'fakes'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_QEMU_PYTHON", sys.executable)
    install("kexec")
    return install


@pytest.fixture
def paper_bench(tmp_path: Path) -> Bench:
    """A bench whose kernels and image are names only: the stand-in does not open them."""
    run = tmp_path / "run"
    run.mkdir()
    config = tmp_path / "config"
    config.write_text("CONFIG_KVM=y\n")
    kernel = Kernel("paper", "digest", "7.3.4", tmp_path / "vmlinux", tmp_path / "bzImage", config, ())
    choice = AcceleratorChoice(Accelerator.TCG, "a test")
    return Bench(kernel, kernel, Image("paper", "digest", tmp_path / "image"), MachineSpec(), choice, run)


@pytest.fixture
def write_scenario(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of scenarios, with the imports that most have."""

    def write(body: str) -> Path:
        path = tmp_path / "scenarios" / "test_own.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("import pytest\nfrom harness.errors import *\n" + body)
        return path

    return write
