# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own tests as guests of the harness: built from the tree under test, run in L1, judged.

They share a boot for as long as all goes well in it, and one live update: each that goes on after a kexec has
had its first stage by then. When one fails, those without a verdict get a boot of their own, so that no
test suffers from another, and a kernel that dies on the way is the fault of one.

A test of two stages has to fail when its second is started before any kexec: what passes without a live
update proves nothing of it. That there was one is proved as for any scenario (guest/kexec.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from harness.attempt import Ground
from harness.boot import Boot
from harness.case import (
    Bench,
    Finding,
    LiveUpdate,
    Outcome,
    PatchedTree,
    Phase,
    Program,
    ScenarioResult,
    Selftest,
    Update,
)
from harness.crash.console import findings
from harness.crash.excerpt import heading
from harness.errors import KernelError, UsageError
from harness.guest import program
from harness.guest.journal import Journal
from harness.guest.session import Session
from harness.image import disk
from harness.kernel import config, selftests
from harness.kselftest.verdict import Judgement, judge, tail
from harness.machine.host import HostMachine

DISK, MOUNT = "selftests", "/run/selftests"
# The link in /proc of the descriptor that keeps a session (kernel/liveupdate/luo_session.c).
SESSION_LINK = "luo_session"
OPTION_HINT = ", which linux-7.3-kselftest has"
WITHOUT_UPDATE = "its second stage passes before any live update, and so proves nothing"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The trials of an attempt that are these tests (attempt.Trials)."""

    tests: tuple[Selftest, ...]

    def admit(self, tree: PatchedTree) -> None:
        """Raise UsageError where the tree does not have a test that was asked for by name."""
        for test in self.tests:
            if test.named and not selftests.has(tree, test):
                raise UsageError(
                    f"the tree has no {selftests.place(test)}",
                    hint="`luh kselftest --list` names what is known",
                )

    def run(self, ground: Ground) -> None:
        """Build the tests and run them."""
        with ground.timeline.phase("selftests") as progress:
            programs = selftests.build(ground.tree, self.tests, ground.bench.kernel, ground.store, progress)
        waiting = [one for one in programs if not _settled(one, ground)]
        with ground.timeline.unshown("scenarios"):
            run_all(ground, waiting)


def _settled(one: Program, ground: Ground) -> bool:
    """Report a test that cannot be run, and say so."""
    option = one.test.option
    if one.problem:
        outcome = Outcome.SKIP if one.missing else Outcome.FAIL
        ground.report(ScenarioResult(one.test.title, outcome, 0.0, one.problem, one.detail))
    elif option and config.values(ground.bench.kernel.config).get(option) != "y":
        ground.report(
            ScenarioResult(one.test.title, Outcome.SKIP, 0.0, f"needs CONFIG_{option}=y{OPTION_HINT}")
        )
    else:
        return False
    return True


def run_all(ground: Ground, waiting: list[Program]) -> None:
    """Boot after boot, until each has a verdict."""
    places = {one.test.name: one.path for one in waiting if one.path}
    bench = replace(ground.bench, disks=(disk.build(DISK, places, ground.store),)) if places else ground.bench
    number, together = 0, True
    while waiting:
        number += 1
        place = ground.bench.directory / f"boot-{number}"
        boot = _Boot(ground, replace(bench, directory=place), waiting if together else waiting[:1])
        boot.run()
        # Who was carried along to a kexec that went wrong has to go there alone.
        together = bool(boot.settled) and not boot.updated
        waiting = [one for one in waiting if one.test not in boot.settled]


@dataclass(slots=True)
class _Course:
    """One test under way. phases: what it has been through."""

    one: Program
    phases: list[Phase] = field(default_factory=list)
    output: str = ""

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)


class _Stop(Exception):
    """Something went wrong in this boot: whoever has no verdict yet gets another."""


class _Boot:
    """The tests of one boot. settled: those that have a verdict. updated: whether it came to a kexec."""

    def __init__(self, ground: Ground, bench: Bench, batch: Sequence[Program]) -> None:
        self.settled: set[Selftest] = set()
        self.updated = False
        self._ground, self._bench = ground, bench
        self._courses = [_Course(one) for one in batch]
        self._current: _Course | None = self._courses[0] if len(batch) == 1 else None
        self._journal = Journal()
        self._known: set[str] = set()
        self._machine: HostMachine | None = None

    def run(self) -> None:
        """Power on, run what can be run, power off. Raises InfraError; KernelError where no test began."""
        boot = Boot(self._bench, self._journal, self._say, self._say, self._adopt)
        try:
            with boot.host() as session, suppress(_Stop):
                self._tests(session)
        except KernelError as error:
            self._blame(error)
        if self._current is None and not self._left():
            self._report_late()

    def _adopt(self, machine: HostMachine) -> None:
        self._machine = machine

    def _tests(self, session: Session) -> None:
        if found := self._found(session, ""):
            raise _reports(found)
        self._mount(session)
        carried = [course for course in self._courses if self._before(session, course)]
        if carried:
            self._current = carried[0] if len(carried) == 1 else None
            self.updated = True
            session = session.live_update()
            self._mount(session)
            if found := self._found(session, ""):
                self._reported(found)
            for course in carried:
                self._after(session, course)
        session.call("host.hello")

    # ---- the steps -----------------------------------------------------------------------------

    def _mount(self, session: Session) -> None:
        if self._bench.disks:
            session.call("host.mount_disk", serial=DISK, place=MOUNT)

    def _before(self, session: Session, course: _Course) -> bool:
        """What a test does before a kexec; says whether it goes on after one."""
        test = course.one.test
        if test.log:
            return True
        if test.stages == 1:
            self._settle(course, judge(self._start(session, course, "run")))
            return False
        control = self._start(session, course, "stage 2 without a kexec", "-s", "2")
        if control.code == 0:
            self._settle(course, Judgement(Outcome.FAIL, WITHOUT_UPDATE, tail(control.output)))
        first = self._start(session, course, "stage 1", "-s", "1", may_hold=SESSION_LINK)
        judgement = Judgement(Outcome.PASS) if first.stays else judge(first)
        if judgement.outcome is Outcome.PASS:
            return True
        self._settle(course, replace(judgement, reason=f"stage 1: {judgement.reason}"))
        return False

    def _after(self, session: Session, course: _Course) -> None:
        """What a test does after the kexec."""
        test = course.one.test
        if test.log:
            lines = session.kernel_log()
            said = any(test.log in line for line in lines)
            reason = "" if said else f"the next kernel does not say {test.log!r}"
            self._settle(course, Judgement(Outcome.PASS if said else Outcome.FAIL, reason))
            return
        judgement = judge(self._start(session, course, "stage 2", "-s", "2"))
        if judgement.outcome is Outcome.FAIL:
            judgement = replace(judgement, reason=f"stage 2: {judgement.reason}")
        self._settle(course, judgement)

    def _start(
        self, session: Session, course: _Course, stage: str, *arguments: str, may_hold: str = ""
    ) -> program.Ended:
        """Start the test's program; a report of the kernel against itself meanwhile is a FAIL."""
        test = course.one.test
        self._current = course
        mark = f"luh: kselftest {test.name}: {stage}"
        session.call("files.put_text", path="/dev/kmsg", text=f"<5>{mark}\n")
        start = time.monotonic()

        def show(line: str) -> None:
            self._say(line or stage)

        self._say(stage)
        argv = (f"{MOUNT}/{test.name}", *arguments)
        try:
            ended = program.run(session, argv, course.one.seconds, show, may_hold=may_hold)
            course.output += f"# {stage}: {ended.text}\n{ended.output}\n"
        finally:
            course.phases.append(Phase(stage, start - self._ground.timeline.began, time.monotonic() - start))
        if found := self._found(session, mark):
            self._reported(found)
        return ended

    # ---- what comes of it ----------------------------------------------------------------------

    def _settle(self, course: _Course, judgement: Judgement) -> None:
        """Report the verdict; a FAIL ends this boot."""
        test = course.one.test
        reason, detail = judgement.reason, judgement.detail
        if course.one.options and judgement.outcome in (Outcome.FAIL, Outcome.SKIP):
            lacking = f"the kernel lacks what its `config` asks for: {', '.join(course.one.options)}"
            reason, detail = (reason, f"{detail}\n{lacking}") if detail else (f"{reason}; {lacking}", "")
        updates: tuple[LiveUpdate, ...] = self._journal.updates if test.stages == 2 or test.log else ()
        result = ScenarioResult(
            name=test.title,
            outcome=judgement.outcome,
            seconds=course.seconds + sum(update.seconds for update in updates),
            reason=reason,
            detail=detail if judgement.outcome is not Outcome.PASS else "",
            phases=(*self._boot_phases(), *course.phases),
            updates=updates,
            subtests=judgement.subtests,
            findings=judgement.findings,
        )
        self._keep(result, course)
        self.settled.add(test)
        self._ground.report(result)
        self._current = None
        if judgement.outcome is Outcome.FAIL:
            raise _Stop

    def _boot_phases(self) -> tuple[Phase, ...]:
        began = self._ground.timeline.began
        boots = (phase for phase in self._journal.phases if phase.name == "boot")
        return tuple(replace(phase, start=phase.start - began) for phase in boots)

    def _keep(self, result: ScenarioResult, course: _Course) -> None:
        """The test's own directory of traces: its output, and a way to the consoles of its boot."""
        place = self._ground.bench.directory / result.traces
        place.mkdir(exist_ok=True)
        (place / "output.log").write_text(course.output, encoding="utf-8")
        with suppress(FileExistsError):
            (place / "console.log").symlink_to(f"../{self._bench.directory.name}/console.log")

    def _blame(self, error: KernelError) -> None:
        """The kernel died, hung or refused: the fault of whoever was running, if that was one alone."""
        if self._current is not None:
            detail = "\n".join(filter(None, (error.detail, tail(self._current.output))))
            with suppress(_Stop):
                judgement = Judgement(Outcome.FAIL, error.message, detail, findings=self._late())
                self._settle(self._current, judgement)
        elif not self.updated or not self._left():
            raise error

    def _reported(self, found: Sequence[Finding]) -> None:
        """The kernel reported against itself: the fault of the test that ran, if it was one alone."""
        if self._current is None:
            raise _Stop
        error = _reports(found)
        judgement = Judgement(Outcome.FAIL, error.message, error.detail, findings=tuple(found))
        self._settle(self._current, judgement)

    def _found(self, session: Session, mark: str) -> tuple[Finding, ...]:
        """What this boot's kernel has reported since the mark."""
        lines = session.kernel_log()
        begin = next((number for number in reversed(range(len(lines))) if mark and mark in lines[number]), 0)
        found = findings((0.0, line) for line in lines[begin:])
        self._known.update(one.title for one in found)
        return found

    def _report_late(self) -> None:
        """What a kernel said on the way to a kexec, or at the end, is no test's own."""
        if late := self._late():
            told = _reports(late)
            self._ground.report(
                ScenarioResult("kernel::console", Outcome.FAIL, 0.0, told.message, told.detail, findings=late)
            )

    def _late(self) -> tuple[Finding, ...]:
        """What the consoles have that was not there when a boot's log was looked at last."""
        lines = self._machine.console if self._machine else ()
        said = findings((line.at, line.text) for line in lines)
        return tuple(one for one in said if one.title not in self._known)

    def _left(self) -> bool:
        return any(course.one.test not in self.settled for course in self._courses)

    def _say(self, text: str) -> None:
        name = self._current.one.test.name if self._current else "selftests"
        self._ground.timeline.progress(Update(name, text))


def _reports(found: Sequence[Finding]) -> KernelError:
    detail = "\n\n".join("\n".join((heading(one), *one.lines)) for one in found)
    return KernelError(heading(found[0]), detail=detail)
