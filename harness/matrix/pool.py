# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs cells beside each other, each in a process of its own, within what the machine has.

usage: python -m harness.matrix.pool CELL.json RESULT.json: attempt the case in the first file and write the
verdict to the second. Progress comes on stdout, a line of JSON each.

A process a cell, because an attempt waits in many places and ending a process ends all of them: whoever
leaves the pool's block ends what runs.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness import attempt, command
from harness.case import Case, KiB, MachineSpec, Outcome, Progress, Update, Verdict
from harness.errors import HarnessError
from harness.exchange import decode, encode
from harness.layout import Layout
from harness.store import Store

POLL_SECONDS = 0.5
# Of the memory that is free when the pool starts; the rest is for page tables and for others.
SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Means:
    """What the machine has for cells: CPUs, and bytes of memory."""

    cpus: int
    memory: int

    @classmethod
    def here(cls) -> Means:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        memory = int(int(available.split()[1]) * KiB * SHARE)
        return cls(len(os.sched_getaffinity(0)), memory)

    def fits(self, running: Sequence[MachineSpec], more: MachineSpec, jobs: int | None) -> bool:
        """Whether one more machine can run beside these; the first always can."""
        if not running:
            return True
        if jobs is not None:
            return len(running) < jobs
        together = [*running, more]
        enough = sum(one.memory for one in together) <= self.memory
        return enough and sum(one.cpus for one in together) <= self.cpus


@dataclass(slots=True)
class _Job:
    name: str
    case: Case
    result: Path
    stack: ExitStack
    stream: int
    status: Callable[[], int | None]
    began: float = field(default_factory=time.monotonic)
    pending: bytes = b""


def run(
    cases: Sequence[tuple[str, Case]], directory: Path, runs: Path, jobs: int | None, progress: Progress
) -> Iterator[tuple[str, Case, Verdict]]:
    """Attempt them all; yields each as it ends, in whatever order. directory: for the files of the
    processes.
    """
    waiting, running, means = list(cases), dict[str, _Job](), Means.here()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and means.fits(
                [job.case.machine for job in running.values()], waiting[0][1].machine, jobs
            ):
                name, case = waiting.pop(0)
                job = _start(name, case, directory, runs, len(running))
                stack.push(job.stack)
                running[name] = job
                selector.register(job.stream, selectors.EVENT_READ, job)
                progress(Update(name, "starting"))
            for key, _ in selector.select(POLL_SECONDS):
                job = key.data
                if not _relay(job, progress):
                    selector.unregister(job.stream)
                    del running[job.name]
                    yield job.name, job.case, _verdict(job, directory)


def _start(name: str, case: Case, directory: Path, runs: Path, number: int) -> _Job:
    stem = directory / f"cell-{time.monotonic_ns()}-{number}"
    question, result = stem.with_suffix(".case.json"), stem.with_suffix(".verdict.json")
    question.write_text(json.dumps({"case": encode(case), "runs": str(runs)}), encoding="utf-8")
    stack = ExitStack()
    source, sink = os.pipe()
    stack.callback(os.close, source)
    log = stack.enter_context(stem.with_suffix(".log").open("wb"))
    argv = (sys.executable, "-P", "-m", "harness.matrix.pool", str(question), str(result))
    env = {"PYTHONPATH": str(Layout.here().root)}
    with os.fdopen(sink, "wb") as out:
        child = stack.enter_context(command.spawn(argv, env=env, stdout=out, stderr=log))
    return _Job(name, case, result, stack, source, child.poll)


def _relay(job: _Job, progress: Progress) -> bool:
    """Pass on what the process says; False when it has ended."""
    chunk = os.read(job.stream, 1 << 16)
    *lines, job.pending = (job.pending + chunk).split(b"\n")
    for line in lines[-1:]:
        update = decode(Update, json.loads(line))
        progress(
            Update(job.name, f"{update.phase} {update.text}".strip(), done=update.done, left=update.left)
        )
    return bool(chunk)


def _verdict(job: _Job, directory: Path) -> Verdict:
    job.stack.close()
    try:
        return decode(Verdict, json.loads(job.result.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        log = job.result.with_suffix("").with_suffix(".log")
        detail = log.read_text(errors="replace") if log.exists() else ""
        return Verdict(Outcome.BROKEN, "the cell's process ended early", directory, detail=detail)


def main(question: str, result: str) -> int:
    data = json.loads(Path(question).read_text(encoding="utf-8"))

    def tell(update: Update) -> None:
        sys.stdout.write(json.dumps(encode(update)) + "\n")
        sys.stdout.flush()

    case, runs = decode(Case, data["case"]), Path(data["runs"])
    try:
        verdict = attempt.make(layout=Layout.here(), store=Store.default(), runs=runs, progress=tell)(case)
    except HarnessError as error:
        verdict = Verdict(Outcome.BROKEN, error.message, runs, hint=error.hint, detail=error.detail)
    Path(result).write_text(json.dumps(encode(verdict)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
