# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C and SIGTERM at any moment: the harness ends, and QEMU with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import command

# Says when it gets where; a directory of its own, because the parent looks for processes by its name.
CHILD = """
import signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import make_bench
from harness import command
from harness.deadline import Deadline
from harness.machine.qemu import Machine

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
command.GRACE_SECONDS = 0.3
print("starting", flush=True)
with Machine(make_bench(Path({directory!r}))) as machine:
    if {phase!r} == "receive":
        print("there", flush=True)
        machine.receive(Deadline.after(60, "nothing"))
    print("leaving", flush=True)
"""

MOODS = {"start": "mute", "receive": "silent", "end": "stubborn silent"}
CUES = {"start": b"starting", "receive": b"there", "end": b"leaving"}


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def alive(directory: Path) -> list[str]:
    """The command lines of processes that name the directory as QEMU's does."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{directory}/image" in text:
            lines.append(text)
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("phase", ["start", "receive", "end"])
def test_nothing_stays(
    tmp_path: Path, fake_qemu: Callable[..., None], phase: str, number: signal.Signals
) -> None:
    fake_qemu(MOODS[phase])
    child = CHILD.format(tests=str(Path(__file__).parent), directory=str(tmp_path), phase=phase)
    with command.spawn(
        [sys.executable, "-c", child],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
    ) as harness:
        assert harness.stdout
        assert CUES[phase] in (line.strip() for line in harness.stdout)
        wait_until(lambda: bool(alive(tmp_path)))
        os.kill(harness.pid, number)
        assert harness.wait(10) != 0
        wait_until(lambda: not alive(tmp_path))
