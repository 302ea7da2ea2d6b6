# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the harness's own steps take: medians over whole commands, as a user runs them.

Nothing is timed inside this process. The figures come from `luh run --json` and `luh build`, each started
anew every time, so that start-up and everything between is part of them.
"""

from __future__ import annotations

import difflib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness import command
from harness.case import Outcome, Progress, Update
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.store import Store

RUN_SECONDS = 600.0
BUILD_SECONDS = 4 * 3600.0
SCENARIO = "test_memory_survives[vm,memory-vm,memory]"
# What a cold build finds in its store: the source as it was unpacked.
WARM_KIND = "source"

TITLES = {
    "boot": "power-on to agent",
    "restore": "snapshot to agent",
    "kexec": "kexec to agent",
    "run": "warm basic run, whole command",
    "build": "cold build: patches, configuration, make, no ccache",
}
NAMES = tuple(TITLES)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement that was repeated. seconds: each of the values, in the order they came."""

    name: str
    title: str
    median: float
    least: float
    most: float
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, name: str, title: str, seconds: Iterable[float]) -> Figure:
        values = tuple(round(value, 3) for value in seconds)
        return cls(name, title, round(statistics.median(values), 3), min(values), max(values), values)


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures, and the machine that they hold for: never compare across machines or accelerators."""

    machine: str
    figures: tuple[Figure, ...]


def chosen(names: tuple[str, ...], alone: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what is to be measured, all if none. alone: those that are measured by themselves.

    Raises UsageError for one that is unknown, or that is one of those.
    """
    for name in names:
        if name in alone:
            raise UsageError(f"{name!r} is measured by itself", hint=f"`luh bench {name}`")
        if name not in TITLES:
            near = difflib.get_close_matches(name, (*NAMES, *alone), cutoff=0.4) or (*NAMES, *alone)
            raise UsageError(f"there is no benchmark {name!r}", hint=f"did you mean {' or '.join(near)}?")
    return names or NAMES


def measure(names: tuple[str, ...], count: int, progress: Progress) -> Measured:
    """Measure each of the names `count` times. Raises InfraError where a run does not pass."""
    figures: list[Figure] = []
    ran = ""
    for options in (BOOTED, RESTORED):
        if runs := [name for name in names if name in VALUES and VALUES[name][0] == options]:
            action = partial(run, *options)
            repeat("warm-up", 1, action, progress)
            first, *_ = results = repeat("runs", count, action, progress)
            ran = f", {machine_of(first)}"
            figures += [
                Figure.of(name, TITLES[name], (VALUES[name][1](result) for result in results))
                for name in runs
            ]
    if "build" in names:
        luh("build", seconds=BUILD_SECONDS)
        builds = repeat("builds", count, _cold_build, progress)
        figures.append(Figure.of("build", TITLES["build"], builds))
    return Measured(f"{os.cpu_count()} CPUs{ran}", tuple(figures))


def repeat(name: str, count: int, action: Callable[[], R], progress: Progress) -> list[R]:
    results = []
    for number in range(count):
        progress(Update(name, f"{number + 1} of {count}", done=number / count))
        results.append(action())
    progress(Update(name, f"{count} done", finished=True))
    return results


def luh(*arguments: str, seconds: float, env: dict[str, str] | None = None) -> tuple[str, float]:
    argv = (sys.executable, "-m", "harness.cli", *arguments)
    deadline = Deadline.after(seconds, f"luh {arguments[0]}")
    done = command.run(argv, deadline=deadline, env=env or {}, check=False)
    if done.status != 0:
        raise InfraError(f"`luh {' '.join(arguments)}` ended with status {done.status}", detail=done.tail)
    return done.output, done.seconds


def run(*options: str) -> dict[str, Any]:
    """A warm run of the basic scenario: its result.json, and the wall time of the command as "wall"."""
    with tempfile.TemporaryDirectory(prefix="luh-bench-") as runs:
        _, wall = luh("run", SCENARIO, "--runs", runs, *options, seconds=RUN_SECONDS)
        result: dict[str, Any] = json.loads((Path(runs) / "latest" / "result.json").read_text())
    if result["outcome"] != Outcome.PASS:
        raise InfraError(f"the basic scenario did not pass: {result['reason']}")
    return {**result, "wall": wall}


def machine_of(result: dict[str, Any]) -> str:
    """The accelerator and the kernel of a run, in words."""
    return f"{result['accelerator']['name'].upper()}, Linux {result['kernel']['release']}"


def _phase(result: dict[str, Any], name: str) -> float:
    (scenario,) = result["scenarios"]
    return float(next(phase["seconds"] for phase in scenario["phases"] if phase["name"] == name))


# How a host comes up for a figure, and where the figure is in the run's result.
BOOTED, RESTORED = ("--no-snapshots",), ()
VALUES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], float]]] = {
    "boot": (BOOTED, lambda result: _phase(result, "boot")),
    "restore": (RESTORED, lambda result: _phase(result, "boot")),
    "kexec": (RESTORED, lambda result: _phase(result, "kexec to agent")),
    "run": (RESTORED, lambda result: float(result["wall"])),
}


def _cold_build() -> float:
    """A build in a store that has the source and nothing else."""
    with cold_store() as env:
        _, seconds = luh("build", seconds=BUILD_SECONDS, env=env)
    return seconds


@contextmanager
def cold_store() -> Iterator[dict[str, str]]:
    """The environment of a build with a store that has the source and nothing else, and without ccache."""
    store = Store.default()
    with tempfile.TemporaryDirectory(prefix="luh-bench-", dir=store.root) as cold:
        (Path(cold) / WARM_KIND).symlink_to(store.root / WARM_KIND)
        yield {"LUH_STORE": cold, "CCACHE_DISABLE": "1"}
