# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted host: from a snapshot where there can be one, from power-on where not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.case import Access, Bench
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.guest.journal import Journal
from harness.machine import snapshot
from harness.machine.arguments import Memory, command_line
from harness.machine.host import HostMachine
from harness.machine.qemu import Machine
from harness.machine.snapshot import Snapshot
from harness.store import Store

if TYPE_CHECKING:
    from harness.guest.session import Session

BOOT_SECONDS = 30.0
# Another run may be taking the snapshot that this one waits for.
SNAPSHOT_SECONDS = 3 * BOOT_SECONDS
# The traces of a host that nobody has asked for yet.
AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Boot:
    """How a scenario's host comes up, and who is told.

    step: what happens now. remark: why this machine cannot be had from a snapshot. adopt: each machine as
    soon as there is one, so that it can be looked at however its boot ends; the last is the host's. around:
    what is to be left before a machine that boots for its host is switched off. ahead: the host that was
    started before anybody asked, to be used up: it is the one, or it goes.
    """

    bench: Bench
    journal: Journal
    step: Callable[[str], None]
    remark: Callable[[str], None]
    adopt: Callable[[HostMachine], None]
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    ahead: Ahead | None = None

    @contextmanager
    def host(self) -> Iterator[Session]:
        """The first session of a machine that is gone when the block is left.

        Raises BootError where the kernel does not reach its agent.
        """
        with ExitStack() as stack:
            yield self._taken_over(stack) or self._restored(stack) or self._booted(stack)

    def _taken_over(self, stack: ExitStack) -> Session | None:
        """The session of the host that was started ahead; None where there is none, or not such a one."""
        if self.ahead is None:
            return None
        machine = self.ahead.machine
        with suppress(HarnessError), ExitStack() as inner:
            inner.enter_context(self.ahead.stack)
            if replace(self.bench, directory=machine.bench.directory) != machine.bench:
                return None
            self.step("starting")
            session = self.ahead.session.result()
            if machine.why_ended():
                return None
            machine.move(self.bench)
            self.adopt(machine)
            for phase in session.journal.phases:
                self.journal.record(phase)
            session.journal = self.journal
            stack.push(inner.pop_all())
            return session
        return None

    def _booted(self, stack: ExitStack) -> Session:
        self.step("booting")
        machine = stack.enter_context(self._machine())
        self.adopt(machine)
        stack.enter_context(self.around())
        with self.journal.phase("boot"):
            return self._first_word(machine)

    def _machine(self) -> HostMachine:
        if self.bench.target is None:
            return Machine(self.bench)
        from harness.ssh.target import TargetMachine  # which takes longer to import than all the rest

        return TargetMachine(self.bench)

    def _restored(self, stack: ExitStack) -> Session | None:
        """The session of a machine that went on from its snapshot; None where there is none to be had."""
        store = _snapshots(self.bench)
        if store is None:
            return None
        deadline = self._deadline("a snapshot", SNAPSHOT_SECONDS)
        ready = snapshot.provide(self.bench, store, self._take, deadline)
        trouble = ready.trouble
        if not trouble:
            try:
                # Before it starts: another run may remove the snapshot, but what has files open keeps them.
                able = ready.capabilities()
                with ExitStack() as inner:
                    session = self.woken(self.waiting(inner, ready), ready, able)
                    stack.push(inner.pop_all())
                    return session
            except HarnessError as error:
                # Whatever it is, booting shows it again if it was not the snapshot's fault.
                trouble = snapshot.disable(ready, error)
        self.remark(trouble)
        return None

    def waiting(self, stack: ExitStack, ready: Snapshot) -> Machine:
        """A machine that waits for a snapshot's state; the stack ends it. Raises HarnessError."""
        self.step("starting")
        machine = stack.enter_context(Machine(self.bench, ready.memory, ready.console()))
        self.adopt(machine)
        return machine

    def woken(self, machine: Machine, ready: Snapshot, able: Mapping[str, str]) -> Session:
        """The session of a machine that waited. Raises HarnessError where it does not come to life.

        able: what the snapshot's kernel can do.
        """
        from harness.guest.resources import Capabilities
        from harness.guest.session import Session

        deadline = self._deadline("the start from a snapshot")
        with self.journal.phase("boot"):
            snapshot.load(machine, ready, deadline)
            session = Session.resume(
                machine,
                deadline,
                command_line=command_line(self.bench),
                time_scale=self.bench.time_scale,
                journal=self.journal,
            )
            session.capabilities = Capabilities(able)
            return session

    def _take(self, directory: Path) -> None:
        """Boot a machine until its agent is ready, and keep it in `directory`."""
        self.step("booting, for a snapshot")
        with self.journal.phase("snapshot"), Machine(self.bench, Memory(directory, shared=True)) as machine:
            self.adopt(machine)
            session = self._first_word(machine)
            session.call("host.prepare")
            capabilities = session.probe().by_name
            snapshot.save(machine, directory, capabilities, self._deadline("saving a snapshot"))

    def _first_word(self, machine: HostMachine) -> Session:
        from harness.guest.session import Session

        return Session.open(
            machine,
            self._deadline("the kernel's first boot"),
            command_line=machine.command_line,
            time_scale=self.bench.time_scale,
            journal=self.journal,
        )

    def _deadline(self, purpose: str, seconds: float = BOOT_SECONDS) -> Deadline:
        return Deadline.after(seconds, purpose, scale=self.bench.time_scale)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A host that goes on from its snapshot before a scenario asks for one; the stack ends it.

    session: raises HarnessError where it did not come to life.
    """

    machine: Machine
    session: Future[Session]
    stack: ExitStack


@contextmanager
def ahead(bench: Bench, *, wanted: bool = True) -> Iterator[Ahead | None]:
    """Such a host as most scenarios of a run want; None unless wanted, and where it cannot be had at once.

    Why it cannot be had is found out by whoever asks for one: it is not told here.
    """
    with ExitStack() as stack:
        usual = bench.for_host(bench.machine, bench.directory / AHEAD)
        yield _started_ahead(usual, stack) if wanted else None


def _started_ahead(bench: Bench, stack: ExitStack) -> Ahead | None:
    store = _snapshots(bench)
    ready = snapshot.found(bench, store) if store else None
    if ready is None or ready.trouble:
        return None
    boot = Boot(bench, Journal(), lambda step: None, lambda remark: None, lambda machine: None)
    stack.callback(shutil.rmtree, bench.directory, ignore_errors=True)
    with suppress(HarnessError, OSError), ExitStack() as inner:
        able = ready.capabilities()
        machine = boot.waiting(inner, ready)
        # It wakes while the scenarios are being collected, which needs this thread.
        waking = inner.enter_context(ThreadPoolExecutor(1)).submit(boot.woken, machine, ready, able)
        stack.push(inner.pop_all())
        return Ahead(machine, waking, stack)
    return None


def _snapshots(bench: Bench) -> Store | None:
    """Where the snapshots are that hosts of this bench may start from, if they may.

    A shell, a debugger and a network card are of one machine; who wants a dump has a failing boot as it is.
    """
    elsewhere = bench.launcher or bench.target
    if bench.snapshots is None or bench.access != Access() or bench.vmcore or elsewhere:
        return None
    return Store(bench.snapshots)
