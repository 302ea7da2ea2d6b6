# SPDX-License-Identifier: GPL-2.0-or-later
"""Case -> Verdict: the one place that composes the stages, and that turns their errors into verdicts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from harness import record
from harness.case import (
    AcceleratorChoice,
    Attempt,
    Bench,
    Case,
    Environment,
    Image,
    Kernel,
    KernelDefinition,
    Outcome,
    PatchedTree,
    Phase,
    Progress,
    Provider,
    ScenarioResult,
    Stage,
    Update,
    Verdict,
    silent,
)
from harness.crew import LOG, Crew, hired
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError, KernelError, UsageError
from harness.exchange import Collected, Ended, Event, Remark, Step, Uncollected
from harness.hand import Hand
from harness.image import build as image_build
from harness.image import recipe as image_recipe
from harness.kernel import build, config, mirror, patches, series, source
from harness.layout import Layout
from harness.machine import arguments
from harness.remote import HERE, Place
from harness.report import directory, files, words
from harness.scenarios import rules
from harness.store import Store

if TYPE_CHECKING:
    from harness.shell.desk import Desk

PROBE_SECONDS = 60.0
LOG_LINES = 30
# pytest's exit statuses for a node that is not there, and for no scenario at all.
NOTHING_FOUND = (4, 5)

# From what says least to what weighs most: a skipped scenario says nothing.
SEVERITY = (Outcome.SKIP, Outcome.PASS, Outcome.FAIL, Outcome.BROKEN)

K = TypeVar("K")
V = TypeVar("V")


def make(
    *,
    layout: Layout,
    store: Store,
    runs: Path,
    progress: Progress = silent,
    trials: Trials | None = None,
    place: Place = HERE,
    desk: Desk | None = None,
    hand: Hand | None = None,
) -> Attempt:
    """An Attempt that builds in the store and leaves its traces and results in a new directory below `runs`.

    trials: what is run once all is built, and not the case's scenarios. place: where the machines are, and
    what they have beyond what the case says. desk: where somebody sits who wants a prompt at a failure. hand:
    a process for the scenarios of the only case that there is, if it has started already.
    It raises UsageError for a case that cannot be, which leaves nothing; every other error is in the verdict.
    What cuts it off (Ctrl-C, a mistake of the harness) is raised again when the results that there are until
    then have been written.
    """

    def attempt(case: Case) -> Verdict:
        traces = directory.create(runs)
        telling = replace(
            store, told=lambda text: progress(Update("store", text, finished=True, outcome=Outcome.SKIP))
        )
        under_way = _Attempt(case, traces, layout, telling, Timeline(progress), trials, place, desk, hand)
        try:
            verdict = under_way.verdict()
        except UsageError:
            shutil.rmtree(traces, ignore_errors=True)
            raise
        except (KeyboardInterrupt, Exception) as error:
            with suppress(InfraError):
                files.write(case, under_way.cut_off(error), rules(layout.contract))
                error.add_note(f"what there was until then: {words.place(traces)}")
            raise
        try:
            files.write(case, verdict, rules(layout.contract))
        except InfraError as error:
            return replace(verdict, outcome=Outcome.BROKEN, reason=error.message, hint=error.hint)
        return verdict

    return attempt


def prepare(
    case: Case, *, layout: Layout, store: Store, directory: Path, progress: Progress = silent
) -> Bench:
    """All that the case's machine needs, built. Raises what the stages raise.

    directory: for the traces.
    """
    return _Attempt(case, directory, layout, store, Timeline(progress)).prepare()


def worst(results: tuple[ScenarioResult, ...]) -> Outcome:
    """The outcome of scenarios together."""
    return max((result.outcome for result in results), key=SEVERITY.index)


# ---- the clock --------------------------------------------------------------------------------


@dataclass(slots=True)
class Timeline:
    """The phases of an attempt on one monotonic clock, told to the progress as they begin and end."""

    progress: Progress
    began: float = field(default_factory=time.monotonic)
    phases: list[Phase] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Progress]:
        """Time a block; what a stage says in it is shown under this name, and ends when the block does."""
        start = time.monotonic()
        said: list[str] = []

        def relay(update: Update) -> None:
            if update.finished and update.text not in said:
                said.append(update.text)
            self.progress(replace(update, phase=name, finished=False))

        relay(Update(name, ""))
        try:
            yield relay
        except HarnessError as error:
            self.progress(Update(name, error.message, finished=True, outcome=outcome_of(error)))
            raise
        finally:
            self.phases.append(Phase(name, start - self.began, time.monotonic() - start))
        self.progress(Update(name, "; ".join(said), finished=True))

    @contextmanager
    def unshown(self, name: str) -> Iterator[None]:
        """Time a block whose parts are shown instead."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases.append(Phase(name, start - self.began, time.monotonic() - start))


def outcome_of(error: HarnessError) -> Outcome:
    """Whose fault a stage's error is."""
    return Outcome.FAIL if isinstance(error, KernelError) else Outcome.BROKEN


@dataclass(frozen=True, slots=True)
class Ground:
    """What trials are given: all that is built, and `report`, which takes each result as it comes."""

    bench: Bench
    tree: PatchedTree
    store: Store
    timeline: Timeline
    report: Callable[[ScenarioResult], None]


class Trials(Protocol):
    """What is run instead of scenarios."""

    def admit(self, tree: PatchedTree) -> None:
        """Raise UsageError where the tree lacks what was asked for; called before anything is built of it."""

    def run(self, ground: Ground) -> None:
        """Run all, and report a result for each."""


# ---- the way of the data ----------------------------------------------------------------------


def build_kernels(
    definitions: tuple[KernelDefinition, ...], store: Store, timeline: Timeline
) -> dict[KernelDefinition, Kernel]:
    """Each definition once through the four stages; the two of a case are often the same."""
    return build_trees(patch_trees(definitions, store, timeline), store, timeline)


def pinned_kernels(
    definitions: tuple[KernelDefinition, ...], store: Store, timeline: Timeline
) -> dict[KernelDefinition, Kernel]:
    """The kernels that definitions are pinned to, as far as the store has them: no source is looked at."""
    found = {one: build.pinned(one.name, one.pin, store) for one in definitions if one.pin}
    kernels = {one: kernel for one, kernel in found.items() if kernel}
    if kernels:
        with timeline.phase("build") as progress:
            for kernel in kernels.values():
                progress(_said(f"Linux {kernel.release}, the very kernel that was recorded"))
    return kernels


def patch_trees(
    definitions: tuple[KernelDefinition, ...], store: Store, timeline: Timeline
) -> dict[KernelDefinition, PatchedTree]:
    """The first two stages: sources with their series."""
    wanted = tuple(dict.fromkeys(definitions))
    with timeline.phase("source") as progress:
        sources = _each(wanted, lambda one: source.checkout(one.sources, store, progress))
    with timeline.phase("series") as progress:
        trees = _each(wanted, lambda one: series.apply(sources[one], one.series, store, progress, one.upto))
        if not any(tree.subjects for tree in trees.values()):
            progress(_said("none"))
    return trees


def build_trees(
    trees: Mapping[KernelDefinition, PatchedTree], store: Store, timeline: Timeline
) -> dict[KernelDefinition, Kernel]:
    """The last two stages: configurations, and kernels."""
    with timeline.phase("config") as progress:
        configs = _each(
            trees, lambda one: config.resolve(trees[one], one.fragments, store, progress, one.config)
        )
    with timeline.phase("build") as progress:
        return _each(
            trees,
            lambda one: build.build(
                one.name, trees[one], configs[one], store, progress, one.pin, watched=one.watched
            ),
        )


@dataclass(slots=True)
class _Attempt:
    """One attempt under way: what is known so far is what a verdict can say if it ends here."""

    case: Case
    directory: Path
    layout: Layout
    store: Store
    timeline: Timeline
    trials: Trials | None = None
    place: Place = HERE
    desk: Desk | None = None
    hand: Hand | None = None
    trees: dict[KernelDefinition, PatchedTree] = field(default_factory=dict)
    kernels: dict[KernelDefinition, Kernel] = field(default_factory=dict)
    choice: AcceleratorChoice | None = None
    environment: Environment | None = None
    results: list[ScenarioResult] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def verdict(self) -> Verdict:
        """Run all stages; raises UsageError."""
        try:
            with self._crew() as crew:
                record.write(self.case, self.directory, lambda some: patches.gather(some, self.store, silent))
                self._try(self.place.equip(self.prepare()), crew)
        except UsageError:
            raise
        except HarnessError as error:
            return self._so_far(
                outcome_of(error), error.message, self._stage, hint=error.hint, detail=error.detail
            )
        outcome = worst(tuple(self.results))
        first = next(result for result in self.results if result.outcome is outcome)
        return self._so_far(outcome, first.reason if outcome is not Outcome.PASS else "", first.stage)

    def cut_off(self, error: BaseException) -> Verdict:
        """The verdict where something else than a stage's own error ends the attempt."""
        reason = f"a mistake of the harness itself: {type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            reason = f"interrupted by {str(error) or 'Ctrl-C'}"
            if self.running:
                reason += f" in {', '.join(map(words.scenario, self.running))}"
        ended = f"{len(self.results)} of {words.count(len(self.expected), 'scenario')} had ended"
        return self._so_far(Outcome.BROKEN, reason, self._stage, detail=ended if self.expected else "")

    @property
    def _stage(self) -> Stage:
        """The one that was entered last."""
        return Stage(self.timeline.phases[-1].name) if self.timeline.phases else Stage.MACHINE

    def _so_far(
        self, outcome: Outcome, reason: str, stage: Stage, *, hint: str = "", detail: str = ""
    ) -> Verdict:
        return Verdict(
            outcome=outcome,
            reason=reason,
            directory=self.directory,
            phases=tuple(self.timeline.phases),
            scenarios=tuple(self.results),
            kernel=self.kernels.get(self.case.kernel),
            next_kernel=self.kernels.get(self.case.next_kernel),
            choice=self.choice,
            environment=self.environment or record.environment(self.layout, arguments.PROGRAM),
            hint=hint,
            detail=detail,
            stage=stage,
        )

    def prepare(self) -> Bench:
        """Everything before the scenarios."""
        recipe = image_recipe.load(self.case.recipe, self.layout.recipes)
        with self.timeline.phase("machine") as progress:
            deadline = Deadline.after(PROBE_SECONDS, "finding out what this machine can do")
            self.choice = self.place.choose(self.case.machine.accelerator, deadline)
            progress(_said(f"{self.choice.accelerator.upper()}: {self.choice.reason}"))
        definitions = (self.case.kernel, self.case.next_kernel)
        self.kernels = {} if self.trials else pinned_kernels(definitions, self.store, self.timeline)
        if left := tuple(one for one in definitions if one not in self.kernels):
            self.trees = patch_trees(left, self.store, self.timeline)
            if self.trials:
                self.trials.admit(self.trees[self.case.kernel])
            self._keep_origins()
            self.kernels |= build_trees(self.trees, self.store, self.timeline)
        with self.timeline.phase("image") as progress:
            image: Image = image_build.build(recipe, self.store, progress)
            progress(_said(f"{image.name}, {words.size(image.path.stat().st_size)}"))
        kernel, next_kernel = self.kernels[self.case.kernel], self.kernels[self.case.next_kernel]
        machine = self.case.machine
        bench = Bench(
            kernel,
            next_kernel,
            image,
            machine,
            self.choice,
            self.directory,
            self.case.seed,
            snapshots=self.store.root if self.case.snapshots else None,
            vmcore=self.case.vmcore,
        )
        room = self.place.room()
        jobs = 1 if self.desk else self.case.jobs or room.fitting(machine.memory * bench.appetite)
        return replace(bench, jobs=jobs, crowding=room.crowding(jobs, machine.cpus))

    def _keep_origins(self) -> None:
        """Leave in the run directory what nobody else has: the state of a user's tree, and a thread."""
        for one, tree in self.trees.items():
            folder = self.directory / "trees" / one.name
            if any(place.provider is Provider.TREE for place in one.sources) and Path(tree.origin).is_dir():
                mirror.record(Path(tree.origin), tree, folder)
            for given in one.series:
                thread = patches.folder(given, self.store, silent) / patches.THREAD
                if thread.is_file():
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(thread, folder)

    # ---- the scenarios -------------------------------------------------------------------------

    def _crew(self) -> AbstractContextManager[Crew | None]:
        """Who runs the scenarios, which takes as long to start as all before them does when it is there."""
        if self.trials:
            return nullcontext()
        began = self.timeline.began
        return hired(self.case.scenarios, self.layout, self.directory, began, self.desk, self.hand)

    def _try(self, bench: Bench, crew: Crew | None) -> None:
        """Run what was asked for; the results are in self.results, also when this raises."""
        if crew:
            with self.timeline.unshown("scenarios"):
                self._scenarios(bench, crew)
        elif self.trials:
            tree = self.trees[self.case.kernel]
            self.trials.run(Ground(bench, tree, self.store, self.timeline, self._report))

    def _report(self, result: ScenarioResult) -> None:
        self.results.append(result)
        self.running = [name for name in self.running if name != result.name]
        self.timeline.progress(_end_of(result))
        self._tell_how_far()

    def _tell_how_far(self) -> None:
        """Of several scenarios, how many have ended, and how."""
        ended, expected = len(self.results), len(self.expected)
        if expected > 1:
            bad = [one for one in self.results if one.outcome in (Outcome.FAIL, Outcome.BROKEN)]
            text = f"{ended} of {expected} scenarios" + (f", {len(bad)} failed" if bad else "")
            self.timeline.progress(Update("", text, done=ended / expected, finished=ended == expected))

    def _remark(self, remark: Remark) -> None:
        """Show it, once."""
        if remark not in self.remarks:
            self.remarks.append(remark)
            self.timeline.progress(Update(remark.subject, remark.text, finished=True, outcome=Outcome.SKIP))

    def _scenarios(self, bench: Bench, crew: Crew) -> None:
        """Run the scenarios; their results are in self.results, also when this raises."""
        troubles: list[Uncollected] = []

        def on_event(event: Event) -> None:
            match event:
                case Collected(names):
                    self.expected.extend(names)
                    self._tell_how_far()
                case Uncollected():
                    troubles.append(event)
                case Step(name, text):
                    if name not in self.running:
                        self.running.append(name)
                    self.timeline.progress(Update(words.scenario(name), text))
                    self._look_ahead()
                case Remark():
                    self._remark(event)
                case Ended(result):
                    self._report(result)

        crew.begin(bench)
        self._check(crew.follow(bench, on_event), troubles)
        self.results.sort(key=lambda result: self.expected.index(result.name))

    def _look_ahead(self) -> None:
        """Once, have ready what the end needs: a scenario has begun, and it is its host's turn."""
        if self.environment is None:
            self.environment = record.environment(self.layout, arguments.PROGRAM)
            files.prepare()

    def _check(self, status: int, troubles: list[Uncollected]) -> None:
        """Raise where the scenarios' process did not run what it was asked for."""
        if troubles:
            first = troubles[0]
            raise UsageError(f"{first.file} is no file of scenarios", detail=first.detail)
        log = "\n".join((self.directory / LOG).read_text(errors="replace").splitlines()[-LOG_LINES:])
        if status in NOTHING_FOUND:
            raise UsageError(
                f"there is no such scenario: {' '.join(self.case.scenarios)}",
                hint="`luh list` names them all",
                detail=log,
            )
        if len(self.results) != len(self.expected) or not self.expected:
            raise InfraError(f"the scenarios' process ended early, with status {status}", detail=log)


def _each(keys: Iterable[K], make: Callable[[K], V]) -> dict[K, V]:
    return {key: make(key) for key in keys}


def _said(text: str) -> Update:
    """What a phase ends with."""
    return Update("", text, finished=True)


def _end_of(result: ScenarioResult) -> Update:
    text = f"{words.size(result.bytes_verified)} verified" if result.bytes_verified else ""
    text = result.reason or text
    name = words.scenario(result.name)
    return Update(name, text, finished=True, outcome=result.outcome, took=result.seconds)
