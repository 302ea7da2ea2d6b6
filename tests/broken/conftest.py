# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as its user starts it, with a store of its own, and the proof that nothing is left of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import command
from harness.case import silent
from harness.deadline import Deadline
from harness.image import build as image_build
from harness.image import recipe as image_recipe
from harness.layout import Layout
from harness.store import Store

ROOT = Path(__file__).resolve().parents[2]
LUH = [sys.executable, "-P", "-m", "harness.cli"]
SECONDS = 120.0
PASSING = "def test_it(host):\n    host.files.memfd(4096).fill(seed=1)\n"


@dataclass(frozen=True)
class Ran:
    """A run that has ended. result: {} where it wrote none. seconds: of the whole command."""

    status: int
    said: str
    result: dict[str, Any]
    seconds: float


@dataclass
class Bed:
    """Where runs are made. env: what is added to theirs."""

    folder: Path
    store: Path
    runs: Path
    words: list[str]
    env: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`luh run` under way; its words go to the file `said`."""
        env = {"PYTHONPATH": str(ROOT), "LUH_STORE": str(self.store), "LUH_RUNS": str(self.runs)}
        env |= {"TMPDIR": str(self.temporary), "NO_COLOR": "1", **self.env}
        with (self.folder / "said").open("wb") as said:
            argv = [*LUH, "run", *self.words, *words]
            with command.spawn(argv, env=env, stdout=said, stderr=said) as process:
                yield process

    def run(self, *words: str) -> Ran:
        began = time.monotonic()
        with self.start(*words) as process:
            status = process.wait(SECONDS)
        return self.ended(status, began)

    def ended(self, status: int, began: float) -> Ran:
        said = (self.folder / "said").read_text(errors="replace")
        file = self.runs / "latest" / "result.json"
        result = json.loads(file.read_text()) if file.exists() else {}
        return Ran(status, said, result, time.monotonic() - began)

    @property
    def temporary(self) -> Path:
        path = self.folder / "tmp"
        path.mkdir(exist_ok=True)
        return path

    # ---- nothing is left ----

    def assert_clean(self) -> None:
        """No process, no temporary file, no lock that is held, no half entry of the store."""
        until = time.monotonic() + 5
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        for lock in self.store.rglob("*lock"):
            if lock.is_file():
                with lock.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        halves = [path for path in self.store.glob("*/.*") if path.is_dir()]
        assert halves == []
        assert [path for path in self.runs.glob("*/.*") if path.is_file()] == []

    def processes(self) -> list[str]:
        """The command lines of processes that name our folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.folder) in text and int(entry.parent.name) != os.getpid():
                found.append(text)
        return found


@pytest.fixture
def bed(tmp_path: Path, standin: object, tiny_kernel: Path) -> Callable[..., Bed]:
    """Makes a Bed for a scenario, whose kernel has still to be built."""

    def make(body: str = PASSING) -> Bed:
        folder = tmp_path / "bed"
        tree = Path(shutil.copytree(tiny_kernel.parent / "linux", folder / "linux"))
        shutil.copy(tiny_kernel.parent / "tiny.config", folder)
        definition = folder / "tiny.yaml"
        definition.write_text(f"source:\n  - tree: {tree}\nfragments: [{folder}/tiny.config]\n")
        scenario = folder / "test_own.py"
        scenario.write_text("import pytest\nfrom harness.errors import *\n" + body)
        words = [str(scenario), "--kernel", str(definition)]
        return Bed(folder, folder / "store", folder / "runs", words)

    return make


@pytest.fixture
def warm(bed: Callable[..., Bed], small_store: Store) -> Callable[..., Bed]:
    """Makes a Bed whose image is there already, which takes longest; kernels are a second's work."""

    def make(body: str = PASSING) -> Bed:
        made = bed(body)
        image_build.build(image_recipe.load("minimal", Layout.here().recipes), small_store, silent)
        shutil.copytree(small_store.root / "images", made.store / "images")
        return made

    return make


@pytest.fixture
def small_disk() -> Iterator[Callable[[str], Path]]:
    """Mounts tmpfs of a size ("64k"); skips where that is not permitted."""
    places: list[Path] = []

    def mount(size: str) -> Path:
        place = Path(tempfile.mkdtemp(prefix="luh-disk-"))
        argv: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        try:
            done = command.run(argv, deadline=Deadline.after(10, "mount"), check=False)
        except OSError as error:
            pytest.skip(f"nothing can be mounted here: {error}")
        if done.status != 0:
            place.rmdir()
            pytest.skip(f"nothing can be mounted here: {done.output.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        command.run(["umount", "--lazy", place], deadline=Deadline.after(10, "umount"), check=False)
        place.rmdir()


@pytest.fixture
def stalling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program on PATH that stalls where its words have a certain one; returns the file that it makes
    then, and is the real program otherwise."""

    def stall(program: str, word: str) -> Path:
        real, cue = command.find(program), tmp_path / "stalled"
        folder = tmp_path / "stalling"
        folder.mkdir()
        script = folder / program
        script.write_text(
            f'#!/bin/sh\ncase " $* " in *"{word}"*) touch {cue}; exec sleep 600;; esac\nexec {real} "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return cue

    return stall


def await_file(path: Path) -> None:
    limit = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < limit, path
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """As a terminal or a CI runner does: the harness itself gets it, not its children."""
    os.kill(process.pid, number)
