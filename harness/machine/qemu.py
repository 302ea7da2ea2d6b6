# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that L1 runs on: one QEMU process, from power-on until nothing is left of it.

It outlives kernels: a kexec changes who speaks on the agent's port, nothing else. Monitor, console and
agent talk over socket pairs that QEMU inherits, so that nothing has to be polled for or removed.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness import command
from harness.case import Bench, Death, Ending
from harness.deadline import Deadline
from harness.errors import DeadlineError, HarnessError, InfraError
from harness.machine import arguments, ending, postmortem, pulse
from harness.machine.arguments import Memory, Wires
from harness.machine.console import Line, OnLine, recorded
from harness.machine.host import HostMachine
from harness.machine.qmp import CLOSED, Event, Monitor, monitored
from harness.machine.terminal import attended

OLDEST_QEMU = (7, 2)
START_SECONDS = 20.0
QUIT_SECONDS = 1.0
# A panic is known before its last lines are out; what hangs on its way down is not waited for longer.
PANIC_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.5
STEP_SECONDS = 0.01
TAIL_LINES = 20
LOG = "qemu.log"
CHUNK = 1 << 16
# What a socket holds that QEMU writes to, as far as net.core.wmem_max allows. A byte that it writes by itself
# counts as 768: the usual room is full after 277, and a guest that then waits 50 ms loses what it says.
ROOM = 8 << 20
INSTALL = "install the package qemu-system-x86; `luh doctor` lists all that is missing"


class Machine(HostMachine):
    """A machine that is on inside its `with` block, and gone after it.

    Once it has ended, `send` and `receive` raise the error that says why. Entering returns when QEMU runs and
    its monitor answers, long before the guest is up; it raises InfraError when QEMU is missing, too old or
    does not start. Its traces are qemu.argv, qemu.log (QEMU's stderr) and console.log.

    memory: a snapshot's files for its memory (snapshot.py). past: what was on its console before. on_line:
    called with each line of the serial console (console.py). argv: QEMU's command line. vmcore: the dump
    of its memory, where one was kept.
    """

    def __init__(
        self,
        bench: Bench,
        memory: Memory | None = None,
        past: Sequence[Line] = (),
        *,
        on_line: OnLine | None = None,
    ) -> None:
        super().__init__(bench)
        self.command_line = arguments.command_line(bench)
        self.memory = memory
        self._past = past
        self._on_line = on_line
        self.argv: tuple[str, ...] = ()
        self._log = bench.directory / LOG
        self.vmcore: Path | None = None
        self._registers = ""
        self._over = threading.Event()
        self._events: list[Event] = []

    # ---- what can be seen of it ---------------------------------------------------------------

    @property
    def pid(self) -> int:
        """QEMU's."""
        return self._process.pid

    @property
    def port_closings(self) -> tuple[float, ...]:
        """When a kernel closed the agent's port, on the monotonic clock: at its end, or at a kexec."""
        return tuple(event.at for event in self._events if event.reason == CLOSED)

    @property
    def monitor(self) -> Monitor:
        """For QMP commands."""
        return self._monitor

    def forwarded_port(self) -> int:
        """The port of 127.0.0.1 that leads to the guest's SSH server."""
        deadline = Deadline.after(QUIT_SECONDS, "the forwarded port")
        said = self._monitor.execute("human-monitor-command", deadline, command_line="info usernet")
        # TCP[HOST_FORWARD]  13       127.0.0.1 40123       10.0.2.15    22     0     0
        found = re.search(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", str(said))
        if not found:
            raise InfraError("QEMU forwards no port", detail=str(said))
        return int(found[1])

    @property
    def ended(self) -> bool:
        """Whether its guest is known to be at its end."""
        return self._over.is_set()

    def move(self, bench: Bench) -> None:
        """Be the machine of a bench that differs in its directory alone: the traces go there."""
        self.bench.directory.rename(bench.directory)
        self.bench, self._log = bench, bench.directory / LOG

    # ---- the agent's port ---------------------------------------------------------------------

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Pass bytes on to the agent. Raises as `receive` does."""
        rest = memoryview(data)
        while rest:
            self._wait(selectors.EVENT_WRITE, deadline)
            with suppress(BlockingIOError):
                rest = rest[self._send_some(rest) :]

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes from the agent, at least one.

        Raises CrashError when the guest panicked, rebooted, was reset or powered off, InfraError when QEMU
        itself broke, both at once and with the last lines of the console or of QEMU; DeadlineError when
        the machine lives and nothing came.
        """
        while True:
            self._wait(selectors.EVENT_READ, deadline)
            with suppress(BlockingIOError, ConnectionResetError):
                if data := self._agent.recv(CHUNK):
                    return data
                raise self._why_ended()

    def why_ended(self) -> HarnessError | None:
        """Why this machine is no use any more; None while it is."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pidfd, selectors.EVENT_READ)
            selector.register(self._alarm, selectors.EVENT_READ)
            return self._why_ended() if selector.select(0) else None

    def _send_some(self, data: memoryview) -> int:
        try:
            return self._agent.send(data)
        except (BrokenPipeError, ConnectionResetError):
            raise self._why_ended() from None

    def _wait(self, readiness: int, deadline: Deadline) -> None:
        """Wait until the agent's socket is ready; bytes that came before the end are read before it."""
        self._console.check()
        with selectors.DefaultSelector() as selector:
            selector.register(self._agent, readiness)
            selector.register(self._pidfd, selectors.EVENT_READ)
            selector.register(self._alarm, selectors.EVENT_READ)
            samples: list[pulse.Sample] = []
            while not (keys := selector.select(min(deadline.check(), pulse.INTERVAL_SECONDS))):
                self._feel_pulse(samples)
        if self._agent not in {key.fileobj for key, _ in keys}:
            raise self._why_ended()

    def _feel_pulse(self, samples: list[pulse.Sample]) -> None:
        """Look whether the CPUs get on; where they do not, the machine has ended."""
        if self.ended:
            return
        with suppress(HarnessError):
            samples.append(pulse.read(self.elapsed(), postmortem.registers(self._monitor)))
            if self._hang(samples):
                exact = postmortem.stopped_registers(self._monitor)
                if hang := self._hang([*samples, pulse.read(self.elapsed(), exact)]):
                    self._registers = exact
                    self._see(Event("HANG", hang.reason))
                else:
                    samples.clear()
                    postmortem.resume(self._monitor)

    def _hang(self, samples: list[pulse.Sample]) -> pulse.Hang | None:
        between = ending.between_kernels([line.text for line in self.console[-1:]])
        # What else runs here now may be more than when the run began.
        patience = self.bench.slowness * max(
            self.bench.crowding, os.getloadavg()[0] / len(os.sched_getaffinity(0))
        )
        return pulse.hang(samples, between=between, patience=patience)

    def _why_ended(self) -> HarnessError:
        """Let what is still on its way arrive, then say why this machine is no use any more."""
        self._end()
        console = [line.text for line in self.console]
        return ending.explain(self._events, self._process.poll(), console, _tail(self._log))

    def _end(self) -> None:
        """Look at a guest that has died, and end QEMU; whatever it said has been read then."""
        panic = Deadline.after(PANIC_SECONDS, "the end of a panic")
        while not self.ended and self._process.poll() is None and not panic.expired:
            self._over.wait(STEP_SECONDS)
        if self.ending is None and (death := ending.death(self._events)):
            self.ending = self._look(death)
            if self.bench.vmcore:
                self.keep_memory()
            self._quit()
        until = Deadline.after(LAST_WORDS_SECONDS, "QEMU's end")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(until.remaining)
        self._monitor.wait_closed(until.remaining)
        self._console.wait_ended(until.remaining)

    def _look(self, death: Death) -> Ending:
        at, seen = self.elapsed(), self._registers or postmortem.stopped_registers(self._monitor)
        reason = next((event.reason for event in self._events if event.name == "HANG"), "")
        address = postmortem.address(seen)
        self.mark(f"the guest died: {death} {address:#x} {reason}".rstrip())
        return Ending(death, at, reason, address, postmortem.brief(seen))

    def keep_memory(self) -> None:
        """Stop the guest and write its memory to `vmcore` beside the other traces, unless that was done.

        Does nothing where QEMU is gone. Raises InfraError where it cannot be written.
        """
        if self.vmcore is None and self._process.poll() is None:
            said = (line.text for line in self.console)
            self.vmcore = postmortem.dump(self._monitor, self.bench.directory, said)

    # ---- its life -----------------------------------------------------------------------------

    def _start(self, stack: ExitStack) -> None:
        """Put on the stack what has to be undone; the last that is put there is undone first."""
        program = arguments.PROGRAM if self.bench.launcher else command.find(arguments.PROGRAM)
        if not program:
            raise InfraError(f"{arguments.PROGRAM} is not on PATH", hint=INSTALL)
        directory = self.bench.directory
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, self._alarm)
        with ExitStack() as theirs:
            qmp, its_qmp = _pair(stack, theirs)
            console, its_console = _pair(stack, theirs)
            self._agent, its_agent = _pair(stack, theirs)
            inherited = Wires(its_qmp, its_console, its_agent, *self._ways_in(stack, theirs))
            self.argv = arguments.command(program, self.bench, inherited, self.memory)
            with _disk_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "qemu.argv").write_text(_for_reading(self.argv))
                log = stack.enter_context(self._log.open("wb"))
                self.powered_on = time.monotonic()
                # Entered before QEMU starts, so that it is left when QEMU is gone and all has been read.
                self._console = stack.enter_context(
                    recorded(console, directory / "console.log", self.powered_on, self._on_line, self._past)
                )
            self._process = stack.enter_context(
                command.spawn(
                    (*self.bench.launcher, *self.argv), pass_fds=inherited.descriptors, stdout=log, stderr=log
                )
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        stack.callback(os.close, self._pidfd)
        self._monitor = stack.enter_context(monitored(self._see))
        stack.callback(self._leave)
        self._greet(program, qmp)

    def _ways_in(self, stack: ExitStack, theirs: ExitStack) -> tuple[int | None, int | None]:
        """QEMU's descriptors for the second console and for gdb, where these are wanted."""
        terminal = debugger = None
        if self.bench.access.terminal:
            ours, terminal = _pair(stack, theirs)
            self.terminal = stack.enter_context(attended(ours))
        if path := self.bench.access.debugger:
            listening = theirs.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(path))
            stack.callback(path.unlink, missing_ok=True)
            listening.listen(1)
            debugger = listening.fileno()
        return terminal, debugger

    def _greet(self, program: str, qmp: socket.socket) -> None:
        try:
            version = self._monitor.connect(qmp, Deadline.after(START_SECONDS, "QEMU's start"))
        except DeadlineError:
            raise
        except InfraError as error:
            _check_version(_version(program))
            raise InfraError(
                "QEMU does not start", detail=_tail(self._log) or error.message, hint="see `luh doctor`"
            ) from error
        _check_version(version)

    def _see(self, event: Event) -> None:
        """In the monitor's thread, but for events of our own."""
        self._events.append(event)
        if event.name in ("SHUTDOWN", "STUCK", "HANG"):
            self._over.set()
        if event.name in ending.FATAL:
            os.eventfd_write(self._alarm, 1)

    def _leave(self) -> None:
        """End QEMU; a guest that died while nobody waited for it is looked at first."""
        if self.ending is None and ending.death(self._events):
            self._end()
        self._quit()

    def _quit(self) -> None:
        """Ask QEMU to go; what does not is ended by the owner of the process."""
        until = Deadline.after(QUIT_SECONDS, "QEMU's end")
        if self._process.poll() is None:
            with suppress(HarnessError, subprocess.TimeoutExpired):
                self._monitor.execute("quit", until)
                self._process.wait(until.remaining)


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, int]:
    """Our end of a new socket pair, which does not block, and the number of QEMU's."""
    here, there = socket.socketpair()
    ours.enter_context(here)
    theirs.enter_context(there)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    here.setblocking(False)
    return here, there.fileno()


def _version(program: str) -> tuple[int, int]:
    said = command.run([program, "--version"], deadline=Deadline.after(START_SECONDS, "QEMU's version"))
    found = re.search(r"version (\d+)\.(\d+)", said.output)
    return (int(found[1]), int(found[2])) if found else OLDEST_QEMU


def _check_version(version: tuple[int, int]) -> None:
    if version < OLDEST_QEMU:
        found, needed = (".".join(map(str, number)) for number in (version, OLDEST_QEMU))
        raise InfraError(f"QEMU {found} is too old: {needed} is the oldest that works", hint=INSTALL)


def _for_reading(argv: tuple[str, ...]) -> str:
    """A command for a shell, with an option and its value on each line."""
    words = [shlex.quote(word) for word in argv]
    return "".join(f" \\\n  {word}" if word.startswith("-") else f" {word}" for word in words).lstrip() + "\n"


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfraError(f"cannot write to {directory}: {error.strerror}") from error
