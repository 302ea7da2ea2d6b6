# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh matrix`: kernels x kernels x configurations x machines x scenarios."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.case import Outcome, Progress, ScenarioResult, Update
from harness.commands import kernels, output
from harness.errors import HarnessError, UsageError
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, Parser, positive, say
from harness.store import Store

if TYPE_CHECKING:
    from harness.matrix.plan import Cell, Plan
    from harness.matrix.results import Result
    from harness.report.grid import Square

# The handlers that a scenario uses, by what it says that it needs.
HANDLERS = {"preserve_vm": "kvm-vm", "preserve_guest_memfd": "kvm-gmem", "preserve_memfd": "memfd"}


def add(parser: Parser) -> None:
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml", help="docs/matrix.md says what is in it")
    parser.add_argument("--cell", action="append", default=[], metavar="NAME", help="only these cells")
    parser.add_argument("--jobs", type=positive, help="cells at once (the plan's, or what fits)")
    parser.add_argument("--fresh", action="store_true", help="do not go on with one that was interrupted")
    add_dry_run(parser)
    parser.add_argument("--emit", choices=["github", "gitlab"], help="print the cells as jobs of a CI system")
    parser.add_argument("--list", action="store_true", help="print the cells' names, one a line")
    add_results(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    output.add_install(parser)
    output.add_color(parser)


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the cells, and how long they take")


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="leave the report there, and the results for luh merge"
    )
    parser.add_argument("--no-history", action="store_true", help="do not keep them in the history")


def run(options: argparse.Namespace) -> int:
    from harness.matrix import emit

    plan = load(options.plan)
    if options.emit:
        print((emit.github if options.emit == "github" else emit.gitlab)(plan, str(options.plan)))
        return 0
    plan = _chosen(plan, options.cell)
    if options.list:
        print("\n".join(cell.name for cell in plan.cells))
        return 0
    if options.dry_run:
        return foretell(options, plan)
    return carry_out(options, plan, plan.name)[0]


def load(path: Path) -> Plan:
    """The plan in a file."""
    from harness.kernel import definition
    from harness.matrix import plan
    from harness.scenarios import resolve

    layout = Layout.here()

    def fragment(name: str) -> Path:
        file = Path(name).expanduser() if "/" in name else layout.configs / f"{name}.config"
        if not file.is_file():
            names = [one.stem for one in layout.configs.glob("*.config")]
            raise UsageError(f"there is no fragment {name!r}", hint=definition.nearest(name, names))
        return file.resolve()

    known = plan.Catalogues(
        kernel=kernels.load,
        fragment=fragment,
        scenario=lambda word: resolve([word], layout.scenarios, everything=False),
        recipe=DEFAULT_RECIPE,
    )
    return plan.load(path, known)


def carry_out(options: argparse.Namespace, plan: Plan, title: str) -> tuple[int, list[Result]]:
    """Run a plan and conclude it; returns the exit status, and what came of each cell."""
    from harness.matrix import results

    place = results.directory(results.default_root(), plan)
    found = _run_cells(options, plan, place)
    return conclude(options, title, found, place), found


def _run_cells(options: argparse.Namespace, plan: Plan, place: Path) -> list[Result]:
    """Build each kernel once, then run the cells that have no result yet; those of an interrupted run
    count.
    """
    from harness.matrix import pool, results
    from harness.report import directory

    if options.fresh:
        results.clear(place)
    done = {one.name: one for one in results.load([place])}
    left = [cell for cell in plan.cells if cell.name not in done]
    runs = options.runs or directory.default_root()
    with _kept(done, len(plan.cells)), output.progress(output.stdout(options)) as progress:
        output.ensure_tools(options, progress)
        if done:
            progress(
                Update("matrix", f"{len(done)} of {len(plan.cells)} cells had ended before", finished=True)
            )
        _build(left, progress)
        cells = {cell.name: cell for cell in left}
        jobs = options.jobs or plan.jobs
        counted = _Counter(len(left), progress)
        cases = [(cell.name, cell.case) for cell in left]
        for name, _, verdict in pool.run(cases, place, runs, jobs, counted.relay):
            result = results.judged(cells[name], verdict, _handlers(cells[name]))
            results.save(place, result)
            done[name] = result
            counted.end(result)
    results.clear(place)
    return [done[cell.name] for cell in plan.cells]


def foretell(options: argparse.Namespace, plan: Plan) -> int:
    """Show the cells of a plan, and how long they take by what they took before."""
    from harness.history import History, default_path
    from harness.report.tables import show
    from harness.report.words import count, duration

    with History(default_path()) as history:
        expected = {cell.name: history.expected_seconds(cell.name) for cell in plan.cells}
    rows = [(name, duration(seconds) if seconds else "unknown") for name, seconds in expected.items()]
    console = output.stdout(options)
    show(console, plan.name, rows)
    known = [seconds for seconds in expected.values() if seconds]
    definitions = {one for cell in plan.cells for one in (cell.case.kernel, cell.case.next_kernel)}
    total = sum(known) / len(known) * len(expected) if known else 0.0
    text = f"about {duration(total)} one after the other" if known else "nothing is known of how long"
    console.print(f"{count(len(expected), 'cell')} with {count(len(definitions), 'kernel')}: {text}")
    return 0


@contextmanager
def _kept(done: Sized, total: int) -> Iterator[None]:
    """Where a matrix is cut off, say what is kept."""
    try:
        yield
    except UsageError:
        raise
    except (HarnessError, KeyboardInterrupt):
        say(f"{len(done)} of {total} cells have ended and are kept: the same command goes on from there")
        raise


class _Counter:
    """Says with each cell how many remain, and when they end."""

    def __init__(self, total: int, progress: Progress) -> None:
        import time

        self._clock = time.monotonic
        self._began = self._clock()
        self._total, self._ended, self._progress = total, 0, progress

    def relay(self, update: Update) -> None:
        left = None
        if self._ended:
            left = (self._clock() - self._began) / self._ended * (self._total - self._ended)
        text = f"{self._ended} of {self._total} cells ended, {update.text}"
        self._progress(replace(update, text=text, done=self._ended / self._total, left=left))

    def end(self, result: Result) -> None:
        self._ended += 1
        self._progress(Update(result.name, result.text, finished=True, outcome=result.outcome))


def _build(cells: Sequence[Cell], progress: Progress) -> None:
    """Each kernel once, before any cell runs; one that cannot be built is its cells' verdict."""
    from harness import attempt

    wanted = dict.fromkeys(one for cell in cells for one in (cell.case.kernel, cell.case.next_kernel))
    for number, definition in enumerate(wanted, 1):

        def relay(update: Update, name: str = f"kernel {number}", what: str = definition.name) -> None:
            if not update.finished:
                said = f"{update.phase} {update.text}".strip()
                progress(replace(update, phase=name, text=f"{what}: {said}"))

        name = f"kernel {number}"
        try:
            built = attempt.build_kernels((definition,), Store.default(), attempt.Timeline(relay))[definition]
        except HarnessError as error:
            text = f"{definition.name}: {error.message}"
            outcome = attempt.outcome_of(error)
            progress(Update(name, text, finished=True, outcome=outcome))
        else:
            abi = ", ".join(f"{key} {version}" for key, version in built.abi) or "no live update"
            text = f"{definition.name}: Linux {built.release} ({abi})"
            progress(Update(name, text, finished=True))


def _handlers(cell: Cell) -> frozenset[str]:
    """What the scenarios of a cell preserve, by what they need."""
    from harness.scenarios import needs

    names = frozenset(name for node in cell.case.scenarios for name in needs(Path(node.partition("::")[0])))
    return frozenset(HANDLERS[name] for name in names if name in HANDLERS)


def _chosen(plan: Plan, names: Sequence[str]) -> Plan:
    known = {cell.name: cell for cell in plan.cells}
    for name in names:
        if name not in known:
            raise UsageError(f"the plan has no cell {name!r}", hint="--list prints them")
    return replace(plan, cells=tuple(known[name] for name in names)) if names else plan


# ---- what is shown and kept of results: also of those that come from elsewhere -----------------


def conclude(
    options: argparse.Namespace, title: str, results: Sequence[Result], place: Path | None = None
) -> int:
    """Show the table, leave the files, keep the history; returns the exit status.

    place: where the report goes if the user names no other; None for nowhere.
    """
    from harness.history import History, default_path
    from harness.matrix import results as keeping
    from harness.report import grid
    from harness.report.words import place as shown

    squares = [_square(one) for one in results]
    if not options.no_history:
        with History(default_path()) as history:
            history.record(title, results)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        for one in results:
            keeping.save(options.output, one)
    console = output.stdout(options)
    grid.show(console, f"Matrix {title}", squares)
    if place := options.output or place:
        report = _leave(place, title, results, squares)
        console.print(f" Report  {shown(report)}", soft_wrap=True, highlight=False)
    sys.stdout.flush()
    return output.STATUS[keeping.worst(results)] if results else output.STATUS[Outcome.SKIP]


def _leave(place: Path, title: str, results: Sequence[Result], squares: Sequence[Square]) -> Path:
    """Write the files for people and for CI systems; returns the one for people."""
    from harness.report import directory, grid, junit

    report = place / directory.REPORT
    report.write_text(grid.page(f"Matrix {title}", squares), encoding="utf-8")
    cases = [
        ScenarioResult(one.name, one.outcome, one.seconds, one.text, one.verdict.detail) for one in results
    ]
    (place / "junit.xml").write_text(junit.suite(title, cases), encoding="utf-8")
    return report


def _square(result: Result) -> Square:
    from harness.matrix.oracle import Owed
    from harness.report import directory
    from harness.report.grid import Square

    plain = result.outcome is Outcome.PASS and result.owed is Owed.WORK
    report = result.verdict.directory / directory.REPORT
    return Square(
        result.row,
        result.column,
        result.outcome,
        "" if plain else result.text,
        result.seconds,
        str(report) if report.exists() else "",
    )
