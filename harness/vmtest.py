# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness beside the kernel's own tools/testing/selftests/liveupdate/vmtest.sh: `luh bench vmtest`.

Whole commands of both, turn by turn in one run, because what a machine takes differs from one hour to the
next. vmtest.sh runs as its author does: on the kernel's plain tree, with a build directory that stays, with
the QEMU of this machine and without KVM (its own choice). Of the harness, the kernel has our series and KVM.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import command
from harness.bench import BUILD_SECONDS, RUN_SECONDS, SCENARIO, Figure, cold_store, luh
from harness.case import PatchedTree, Progress, Update
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.store import Store, digest, locked

SCRIPT = "tools/testing/selftests/liveupdate/vmtest.sh"
TESTS = ("luo_kexec_simple", "luo_multi_session", "luo_stress_files", "luo_stress_sessions")
KIND = "vmtest"


@dataclass(frozen=True, slots=True)
class Contest:
    """The same work done by both. ratio: of the medians, the harness's to vmtest.sh's; goal: its most."""

    title: str
    harness: Figure
    vmtest: Figure
    ratio: float
    goal: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal


@dataclass(frozen=True, slots=True)
class Contests:
    """All of them, and the machine that they hold for."""

    machine: str
    contests: tuple[Contest, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """How each of the two does it; both return the wall seconds of whole commands."""

    title: str
    goal: float
    harness: Callable[[], float]
    vmtest: Callable[[], float]


def measure(tree: PatchedTree, store: Store, count: int, progress: Progress) -> Contests:
    """Warm commands, `count` times each, after one of each that is not counted and may build.

    Raises UsageError where the tree has no vmtest.sh, InfraError where a command of either fails.
    """
    script = _script(tree)
    build = store.workspace(KIND, digest(tree.digest))
    deadline = Deadline.after(BUILD_SECONDS, "vmtest.sh's build directory")
    with locked(build / "lock", deadline):
        one, four = (partial(_vmtest, script, build, tests) for tests in (TESTS[:1], TESTS))
        entries = (
            _Entry("one live-update test", 0.25, partial(_luh, "run", SCENARIO), one),
            _Entry("luo_kexec_simple by both", 0.25, partial(_luh, "kselftest", TESTS[0]), one),
            _Entry("the four LUO tests", 0.25, partial(_luh, "kselftest", *TESTS), four),
        )
        return _contests(entries, count, progress, warm_up=True)


def measure_cold(tree: PatchedTree, store: Store, count: int, progress: Progress) -> Contests:
    """Configure, build, boot and live-update from nothing but the source, without ccache. Raises as above."""
    script = _script(tree)

    def theirs() -> float:
        with cold_store() as env:
            return _vmtest(script, Path(env["LUH_STORE"]) / KIND, TESTS[:1])

    def ours() -> float:
        with cold_store() as env:
            return _luh("run", SCENARIO, seconds=BUILD_SECONDS, env=env)

    entries = (_Entry("cold: configure, build, boot, live update", 0.75, ours, theirs),)
    return _contests(entries, count, progress, warm_up=False)


def _contests(entries: tuple[_Entry, ...], count: int, progress: Progress, *, warm_up: bool) -> Contests:
    contests = []
    for entry in entries:
        seconds: dict[str, list[float]] = {"vmtest.sh": [], "luh": []}
        for number in range(-warm_up, count):
            for name, action in (("vmtest.sh", entry.vmtest), ("luh", entry.harness)):
                turn = f"{number + 1} of {count}" if number >= 0 else "once before, not counted"
                progress(Update(entry.title, f"{name}, {turn}"))
                seconds[name] += [action()]
        counted = {name: values[warm_up:] for name, values in seconds.items()}
        ours, theirs = (Figure.of(name, entry.title, counted[name]) for name in ("luh", "vmtest.sh"))
        contests.append(Contest(entry.title, ours, theirs, ours.median / theirs.median, entry.goal))
        progress(Update(entry.title, f"{contests[-1].ratio:.2f} of vmtest.sh's time", finished=True))
    return Contests(f"{os.cpu_count()} CPUs", tuple(contests))


def _script(tree: PatchedTree) -> Path:
    script = tree.path / SCRIPT
    if not script.is_file():
        raise UsageError(f"the tree has no {SCRIPT}", hint="Linux 7.3 has it: `--kernel linux-7.3-mainline`")
    return script


def _vmtest(script: Path, build: Path, tests: tuple[str, ...]) -> float:
    """Run it for each of the tests, as the tree's run-vmtests.sh does."""
    total = 0.0
    for test in tests:
        deadline = Deadline.after(BUILD_SECONDS, f"vmtest.sh of {test}")
        argv = ("bash", script, "-d", build, "-T", test, "-t", "x86_64")
        done = command.run(argv, deadline=deadline, env={"CCACHE_DISABLE": "1"}, check=False)
        if done.status != 0:
            raise InfraError(f"vmtest.sh -T {test} ended with status {done.status}", detail=done.tail)
        total += done.seconds
    return total


def _luh(*words: str, seconds: float = RUN_SECONDS, env: dict[str, str] | None = None) -> float:
    """The wall seconds of a command whose run directory is not kept."""
    with tempfile.TemporaryDirectory(prefix="luh-bench-") as runs:
        return luh(*words, "--runs", runs, seconds=seconds, env=env)[1]
