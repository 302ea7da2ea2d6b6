# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that scenarios are written for: a machine for each test, and a verdict on it.

Fixtures: `host`, a booted host under test (guest/session.py); `bench`; `seed`.
Markers:  rules("P1", "K3")            the contract's rules that the scenario checks
          needs("preserve_vm", ...)    what the kernel must be able to do; else SKIP, decided by trying
          machine(memory=..., cpus=..., numa_nodes=..., kernel_parameters=(...,), resets=...)
          lane("long")                 takes many seconds: left out unless named, or with --all
          alone                        compares times: nothing else of the run goes on beside it

A scenario passes when its body and its host's shutdown raised nothing, the last of its kernels still
answered, and neither kernel reported anything against itself on the console (rule H1).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness import diagnosis
from harness.boot import Ahead, Boot
from harness.case import (
    Bench,
    Finding,
    LiveUpdate,
    MachineSpec,
    Outcome,
    Phase,
    ScenarioResult,
    Stage,
    traces,
)
from harness.crash.excerpt import excerpt, heading
from harness.deadline import Deadline
from harness.errors import BootError, CrashError, HarnessError, KernelError
from harness.exchange import Collected, Ended, Event, Kept, Remark, Step, Uncollected, event_line
from harness.guest import timeline
from harness.guest.journal import Call, Entry, Journal
from harness.guest.kexec import KEXEC_PHASE
from harness.guest.session import Session
from harness.guest.timeline import Seen
from harness.layout import Layout
from harness.machine.host import HostMachine
from harness.scenarios import rules
from harness.slots import Slots

LEAKS_SECONDS = 60.0
ROOM_SECONDS = 600.0
STEP_SECONDS = 0.2
LAST_CALLS = 5

MARKERS = (
    "rules(*ids): the contract's rules that this scenario checks",
    "needs(*capabilities): skip where the kernel cannot do this, found out by trying",
    'lane(name): "long" for what takes many seconds; `luh run --all` runs it too',
    "alone: no other scenario runs beside it, because it compares times",
    "machine(memory, cpus, numa_nodes, kernel_parameters, resets): the machine that this scenario wants",
)


# ---- what is known of a run and of each of its scenarios --------------------------------------


@dataclass(slots=True)
class Trial:
    """A scenario under way.

    errors: what its set-up, body and tear-down raised, in that order. ended: whether the body was left other
    than by an interruption. machine: the one that it got. own_calls: how many operations it had asked for
    when somebody sat down at its machine, whose operations follow. leaks: what kmemleak reported when it was
    asked.
    """

    name: str
    emit: Emitter
    rules: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)
    journal: Journal = field(default_factory=Journal)
    errors: list[pytest.ExceptionInfo[BaseException]] = field(default_factory=list)
    ended: bool = False
    machine: HostMachine | None = None
    session: Session | None = None
    kept: bool = False
    own_calls: int | None = None
    leaks: str = ""
    shown: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the kernels reported against themselves; complete once the machine is gone."""
        return diagnosis.findings(self.machine, self.leaks) if self.machine else ()

    @property
    def updates(self) -> tuple[LiveUpdate, ...]:
        """The live updates, each with its spans; complete once the machine is gone."""
        if self.machine is None:
            return self.journal.updates
        zero = self.machine.powered_on
        lines = [Seen(zero + line.at, line.text) for line in self.machine.console]
        return timeline.updates(self.journal.entries, lines, self.machine.port_closings)

    def step(self, text: str) -> None:
        if self.kept:
            return  # any event takes the terminal away from who sits there
        self.shown = time.monotonic()
        self.emit(Step(self.name, text))

    def on_entry(self, entry: Entry) -> None:
        """Show what the scenario does, but not each of a thousand calls."""
        if isinstance(entry, LiveUpdate):
            self.step(f"live-updated to {entry.to_release}")
        elif isinstance(entry, Phase) and entry.name == "kexec load":
            self.step("going to the next kernel")
        elif isinstance(entry, Call) and time.monotonic() - self.shown >= STEP_SECONDS:
            self.step(entry.operation)


class Emitter:
    """Writes events to the descriptor that the attempt reads; nowhere if there is none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def __call__(self, event: Event) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, event_line(event).encode())


@dataclass(slots=True)
class Run:
    """What all scenarios of this process share; without a bench they can be collected, and not run.

    desk: the terminal for a prompt where a scenario fails; None where nobody sits there. common: the file
    that the processes of a run share, its offset for turns and its bytes for slots; None for a lone one.
    ahead: the host that was started before a scenario asked, until one does. lacking: why needs were not met,
    so as not to boot again.
    """

    emit: Emitter = field(default_factory=lambda: Emitter(None))
    bench: Bench | None = None
    began: float = field(default_factory=time.monotonic)
    known_rules: frozenset[str] = field(default_factory=lambda: frozenset(rules(Layout.here().contract)))
    desk: int | None = None
    common: int | None = None
    ahead: Ahead | None = None
    lacking: dict[tuple[str, ...], str] = field(default_factory=dict)


RUN = pytest.StashKey[Run]()
TRIAL = pytest.StashKey[Trial]()


# ---- pytest's hooks ---------------------------------------------------------------------------


def start(arguments: Sequence[str], run: Run) -> int:
    """Run pytest with this plugin; returns its exit status."""
    return int(pytest.main([*arguments], plugins=[sys.modules[__name__], _Given(run)]))


@dataclass(frozen=True, slots=True)
class _Given:
    """Tells the plugin what it runs scenarios for."""

    run: Run

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[RUN] = self.run


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.failed:
        collector.config.stash[RUN].emit(Uncollected(_file(collector), report.longreprtext))
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        unknown = [name for name in _marked(item, "rules") if name not in config.stash[RUN].known_rules]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: the contract has no rule {', '.join(unknown)}")
    config.stash[RUN].emit(Collected(tuple(map(_name, items))))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run each scenario whose turn this process draws: the others have the rest.

    Their common file is one open file, so that its offset counts for all; the kernel moves it for one at a
    time (fs/file.c, fdget_pos()).
    """
    common = session.config.stash[RUN].common
    if common is None or session.testsfailed:
        return None  # pytest's own loop, which also knows what to do with files that were not collected
    while (turn := os.lseek(common, 1, os.SEEK_CUR) - 1) < len(session.items):
        item = session.items[turn]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    trial = Trial(_name(item), item.config.stash[RUN].emit, _marked(item, "rules"))
    trial.journal = Journal(trial.on_entry)
    item.stash[TRIAL] = trial
    trial.step("")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    trial = item.stash.get(TRIAL, None)
    if trial and call.excinfo:
        trial.errors.append(call.excinfo)
    if trial and call.when == "call":
        trial.ended = True
    if trial and call.when == "teardown":
        trial.emit(Ended(result(trial, item.path, item.config.stash[RUN].began)))
    return report


# ---- fixtures ---------------------------------------------------------------------------------


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """The kernels, image and machine of this scenario, and its own directory for traces."""
    shared = request.config.stash[RUN].bench
    if shared is None:
        raise pytest.UsageError("a scenario needs a machine: start it with `luh run`")
    directory = shared.directory / traces(_name(request.node))
    return shared.for_host(_machine(request.node, shared.machine), directory)


@pytest.fixture
def seed(bench: Bench) -> int:
    """The seed of this run's patterns and random choices (`luh run --seed`)."""
    return bench.seed


@pytest.fixture
def host(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Session]:
    """The host under test, booted for this scenario alone and gone after it."""
    trial, run = request.node.stash[TRIAL], request.config.stash[RUN]
    needs = _marked(request.node, "needs")
    if reason := run.lacking.get(needs):
        pytest.skip(reason)

    def adopt(machine: HostMachine) -> None:
        trial.machine = machine

    def remark(text: str) -> None:
        run.emit(Remark("snapshot", text))

    @contextmanager
    def kept() -> Iterator[None]:
        with _memory_kept(trial), _kept_at_failure(request, trial, bench):
            yield

    ahead, run.ahead = run.ahead, None
    boot = Boot(bench, trial.journal, trial.step, remark, adopt, kept, ahead)
    with _room(request.node, run, bench), boot.host() as session:
        trial.session = session
        if trial.machine and (reason := trial.machine.unfit(bench.machine)):
            pytest.skip(reason)
        if reason := session.probe().missing(needs) if needs else "":
            run.lacking[needs] = reason
            pytest.skip(reason)
        yield session
        if trial.ended and not trial.errors:
            _still_answers(session)
            _nothing_leaked(session.latest, trial)
        trial.step("powering off")


def _room(item: pytest.Item, run: Run, bench: Bench) -> AbstractContextManager[None]:
    """Wait until there is room for the scenario's machine beside those of the others."""
    usual = run.bench.machine.memory if run.bench else bench.machine.memory
    share = math.ceil(bench.machine.memory / (usual * bench.appetite))
    if run.common is None or bench.jobs == 1:
        return nullcontext()
    wanted = bench.jobs if item.get_closest_marker("alone") else share
    deadline = Deadline.after(ROOM_SECONDS, "room for another machine", scale=bench.time_scale)
    return Slots(run.common, bench.jobs).taken(wanted, deadline)


@contextmanager
def _kept_at_failure(request: pytest.FixtureRequest, trial: Trial, bench: Bench) -> Iterator[None]:
    """With somebody at the desk: a prompt where a scenario, or what is checked at its end, has failed."""
    failure: BaseException | None = None
    try:
        yield
    except Exception as error:
        failure = error
        raise
    finally:
        failure = trial.errors[0].value if trial.errors else failure
        desk = request.config.stash[RUN].desk
        if desk is not None and failure and judge(failure) is not Outcome.SKIP:
            _sit_down(desk, request, trial, failure, bench)


def _sit_down(
    desk: int, request: pytest.FixtureRequest, trial: Trial, failure: BaseException, bench: Bench
) -> None:
    """Hand the machine to whoever is at the desk, with the locals of the scenario."""
    from harness.shell.desk import sat_at
    from harness.shell.prompt import Prompt

    assert trial.machine
    names: dict[str, object] = {}
    told = [_told(error, request.path, brief=False) for error in trial.errors] or [_line(failure)]
    for entry in trial.errors[0].traceback if trial.errors else ():
        if Path(entry.path) == request.path:  # from the scenario inwards
            names |= {name: value for name, value in entry.frame.f_locals.items() if name.isidentifier()}
    capture = request.config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    try:
        with sat_at(desk):
            trial.emit(Kept(trial.name, _line(failure)))
            talk = Prompt(trial.machine, trial.session, bench.seed, names)
            trial.kept = True
            trial.own_calls = len(trial.journal.calls)
            talk.greet(told, names)
            talk.converse()
    finally:
        trial.kept = False
        capture.resume_global_capture()
    trial.step("powering off")


@contextmanager
def _memory_kept(trial: Trial) -> Iterator[None]:
    """With `--vmcore`, keep the guest's memory where the scenario fails or a kernel reported something."""
    machine = trial.machine
    assert machine
    try:
        yield
    except KernelError:
        if machine.bench.vmcore:
            machine.keep_memory()
        raise
    failed = any(judge(error.value) is Outcome.FAIL for error in trial.errors)
    if machine.bench.vmcore and (failed or diagnosis.reported(machine)):
        machine.keep_memory()


def _still_answers(session: Session) -> None:
    """Success is a word from the guest: the kernel that was reached last gives its boot id again."""
    last = session.latest
    if last.call("host.hello")["boot_id"] != last.identity.boot_id:
        raise CrashError("the host booted again at the end of the scenario, which nobody asked for")


def _file(collector: pytest.Collector) -> str:
    return collector.path.name if isinstance(collector, pytest.File) else collector.nodeid


def _nothing_leaked(session: Session, trial: Trial) -> None:
    """What kmemleak finds in the last kernel, where that has it, is a report against itself (rule H1)."""
    if not session.call("leaks.supported"):
        return
    trial.step("looking for leaks")
    trial.leaks = session.call("leaks.find", session.deadline(LEAKS_SECONDS, "kmemleak's scans"))


def _name(item: pytest.Item) -> str:
    """FILE::FUNCTION[PARAMETER]; pytest's node id lacks the file's name outside of its root directory."""
    return f"{item.path.name}::{item.nodeid.partition('::')[2]}"


def _machine(node: pytest.Item, spec: MachineSpec) -> MachineSpec:
    for marker in reversed(list(node.iter_markers("machine"))):
        spec = replace(spec, **marker.kwargs)
    return spec


def _marked(item: pytest.Item, name: str) -> tuple[str, ...]:
    """The arguments of all markers of that name, the file's own first."""
    markers = reversed(list(item.iter_markers(name)))
    return tuple(dict.fromkeys(argument for marker in markers for argument in marker.args))


# ---- from what happened to a verdict ----------------------------------------------------------


def result(trial: Trial, file: Path, began: float) -> ScenarioResult:
    """The verdict on a scenario that has ended."""
    outcome, reason, story = Outcome.PASS, "", []
    found = trial.findings
    if trial.errors:
        first = trial.errors[0]
        outcome, reason = judge(first.value), _line(first.value)
        story = [_told(error, file, brief=bool(found)) for error in trial.errors]
    if found:
        # A kernel that reports against itself is at fault, whatever else there was (rule H1).
        died = isinstance(trial.errors[0].value, BootError | CrashError) if trial.errors else False
        reason = heading(found[0]) if died or outcome is not Outcome.FAIL else reason
        outcome = Outcome.FAIL
        story += ["\n".join((heading(one), *(f"  {line}" for line in excerpt(one)))) for one in found]
    if outcome in (Outcome.FAIL, Outcome.BROKEN) and trial.journal.calls:
        story.append(_last_calls(trial.journal.calls[: trial.own_calls]))
    return ScenarioResult(
        name=trial.name,
        outcome=outcome,
        seconds=time.monotonic() - trial.began,
        reason=reason,
        detail="\n\n".join(story) if outcome is not Outcome.SKIP else "",
        rules=trial.rules,
        phases=tuple(replace(phase, start=phase.start - began) for phase in trial.journal.phases),
        updates=tuple(_placed(update, began) for update in trial.updates),
        bytes_verified=trial.journal.bytes_verified,
        measurements=trial.journal.measurements,
        stage=stage(trial),
        findings=found,
    )


def stage(trial: Trial) -> Stage:
    """BOOT or KEXEC where it was that a kernel did not reach its agent."""
    first = trial.errors[0].value if trial.errors else None
    if isinstance(first, BootError):
        return Stage.BOOT
    left = sum(phase.name == KEXEC_PHASE for phase in trial.journal.phases) - len(trial.journal.updates)
    return Stage.KEXEC if isinstance(first, CrashError) and left > 0 else Stage.SCENARIOS


def _placed(update: LiveUpdate, began: float) -> LiveUpdate:
    """The spans on the clock that starts with the attempt."""
    return replace(update, spans=tuple(replace(span, start=span.start - began) for span in update.spans))


def judge(error: BaseException) -> Outcome:
    """Whose fault an exception is that left a scenario."""
    if isinstance(error, pytest.skip.Exception):
        return Outcome.SKIP
    if isinstance(error, KernelError | AssertionError | pytest.fail.Exception):
        return Outcome.FAIL
    return Outcome.BROKEN


def _line(error: BaseException) -> str:
    """The error in one line."""
    plain = isinstance(error, HarnessError | AssertionError | pytest.skip.Exception | pytest.fail.Exception)
    text = str(error).partition("\n")[0]
    return (text if plain else f"{type(error).__name__}: {text}") or type(error).__name__


def _told(info: pytest.ExceptionInfo[BaseException], file: Path, *, brief: bool) -> str:
    """Where in the scenario's file it happened, what, and the details.

    brief: without the console's last lines, because findings have what matters of them.
    """
    error = info.value
    places = [entry for entry in info.traceback if Path(entry.path) == file]
    if not isinstance(error, HarnessError | AssertionError | pytest.fail.Exception):
        places = list(info.traceback)  # a mistake of ours: all of the way there helps
    lines = [
        f"{Path(entry.path).name}:{entry.lineno + 1}: in {entry.name}\n    {str(entry.statement).strip()}"
        for entry in places
    ]
    said = error.message if isinstance(error, HarnessError) else info.exconly()
    detail = error.detail if isinstance(error, HarnessError) else ""
    if brief and isinstance(error, BootError | CrashError):
        detail = ""
    return "\n".join(part for part in (*lines, said, detail) if part)


def _last_calls(calls: Sequence[Call]) -> str:
    lines = [
        f"  {call.operation:28} {call.seconds * 1000:9.1f} ms" + (f"  errno {call.errno}" * bool(call.errno))
        for call in calls[-LAST_CALLS:]
    ]
    return "\n".join(["last operations:", *lines])
