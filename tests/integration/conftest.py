# SPDX-License-Identifier: GPL-2.0-or-later
"""Real kernels in real machines. They share the user's store, so that each kernel is built once.

The machine is emulated on every runner, so that a pass means the same everywhere.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import command
from harness.deadline import Deadline
from tests.ssh.conftest import server  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 3600.0
RUN_SECONDS = 900.0
LUH = [sys.executable, "-P", "-m", "harness.cli"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Ran:
    """A `luh run` that has ended. result: its result.json, {} where it made none."""

    status: int
    output: str
    result: dict[str, Any]
    directory: Path

    @property
    def scenarios(self) -> dict[str, dict[str, Any]]:
        return {scenario["name"].partition("::")[2]: scenario for scenario in self.result["scenarios"]}


def build(*words: str) -> str:
    """Build a kernel before its first run, so that the runs' deadlines are those of runs."""
    deadline = Deadline.after(BUILD_SECONDS, "the kernel")
    return command.run([*LUH, "build", *words], env=ENVIRONMENT, deadline=deadline).output


@pytest.fixture(scope="session")
def kernel() -> None:
    """The kernel with our series is there."""
    build()


@pytest.fixture
def luh_run(kernel: None, tmp_path: Path) -> Callable[..., Ran]:
    """Runs `luh run` with these words on an emulated machine, or on one that they name."""

    def run(*words: str | Path, seconds: float = RUN_SECONDS) -> Ran:
        runs = tmp_path / "runs"
        where = () if "--target" in words else ("--accel", "tcg")
        argv = [*LUH, "run", *words, *where, "--runs", runs]
        deadline = Deadline.after(seconds, "luh run")
        done = command.run(argv, env=ENVIRONMENT, deadline=deadline, check=False)
        latest = (runs / "latest").resolve()
        file = latest / "result.json"
        return Ran(done.status, done.output, json.loads(file.read_text()) if file.exists() else {}, latest)

    return run


@pytest.fixture
def interrupted(kernel: None, tmp_path: Path) -> Callable[..., int]:
    """Starts `luh run`, signals it when a console says the cue, and returns its exit status."""

    def run(number: signal.Signals, cue: str, *words: str | Path) -> int:
        runs = tmp_path / "runs"
        with command.spawn([*LUH, "run", *words, "--runs", runs], env=ENVIRONMENT) as process:
            deadline = Deadline.after(RUN_SECONDS, f"the console's {cue!r}")
            while not any(cue in log.read_text() for log in runs.glob("*/*/console.log")):
                deadline.check()
                time.sleep(0.05)
            os.kill(process.pid, number)
            return process.wait(deadline.remaining)

    return run
