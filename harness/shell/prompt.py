# SPDX-License-Identifier: GPL-2.0-or-later
"""Python at a prompt, with a booted host and all that scenarios have.

What the kernel refuses is a line, not a traceback, and `host` is always the session of the kernel that runs.
"""

from __future__ import annotations

import code
import importlib
import os
import pprint
import rlcompleter
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import CodeType
from typing import Any

from harness.case import GiB, KiB, MiB
from harness.errors import BootError, CrashError, HarnessError, KernelError, UsageError
from harness.guest import errors as guest_errors
from harness.guest import program
from harness.guest.session import Session
from harness.machine.host import HostMachine
from harness.shell.attach import Left, attach

FILE = "<prompt>"
DETAIL_LINES = 20
CONSOLE_LINES = 40
COMMAND_SECONDS = 60.0
HISTORY_LENGTH = 10_000
# From selftests/vms.py, where scenarios have them from.
HELPERS = ("make_guest", "start_guest", "preserve", "preserve_files", "retrieve")
BARE = ("sh", "console", "dmesg", "help", "exit", "quit")

HELP = """\
The host under test
  host                       its session: host.kvm, host.liveupdate, host.files, host.kexec, ...
  host.live_update()         load the next kernel and go there; `host` is the new session afterwards
  sh                         a root shell in the host (Ctrl-] or exit comes back)
  sh("COMMAND")              run one command there and show what it says
  console, console(100)      the last lines of the serial console, of all kernels
  dmesg, dmesg(100)          the kernel's log of this boot
  machine                    the QEMU machine: machine.pid, machine.argv, machine.monitor

A guest to update
  guest = make_guest(host)             a VM, 4 MiB of guest_memfd and a vCPU: guest.vm, .memory, .vcpu
  guest.memory.fill(seed=seed)         write the pattern; .verify(seed=seed) checks it
  preserve(host, guest)                put both into the session "vm0"
  host.live_update()
  session, guest = retrieve(host)      get both back, with the VM's memory bound and a vCPU again
  guest.memory.verify(seed=seed); session.finish()

Also here: seed, KiB, MiB, GiB, raises_errno, errno, signal, time, start_guest, preserve_files.
help(host.kvm) tells of an object; Tab completes; exit or Ctrl-D powers the machine off.
docs/scenarios.md lists what a host can do, docs/shell.md more of this."""


class Prompt(code.InteractiveConsole):
    """One conversation about one machine.

    session: None where the kernel did not come up. names: what the prompt knows besides its own. status:
    an exit status for a conversation that came through a pipe and ended at its first error.
    """

    def __init__(
        self,
        machine: HostMachine,
        session: Session | None,
        seed: int,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(filename=FILE)
        self.machine = machine
        self.status = 0
        self._host = session.latest if session else None
        self._interactive = sys.stdin.isatty()
        self._ended = False
        self.locals.update(_imported())
        self.locals.update(names or {})
        own: dict[str, object] = {
            name: getattr(self, f"_{name}") for name in ("sh", "console", "dmesg", "help")
        }
        self.locals.update(own, host=self._host, seed=seed, machine=machine)

    def greet(self, story: Iterable[str], names: Collection[str]) -> None:
        """Say where a scenario failed, and that its machine is here."""
        self._ended = True  # which the story tells, where it did
        state = f"The machine is as the scenario left it: {self._host!r}" if self._host else ""
        here = f"The scenario's names are here: {', '.join(names)}." if names else ""
        self._say("\n".join(filter(None, ["", *story, "", state, here])))
        self._say("help says what there is; exit goes on with the run.")

    def converse(self) -> int:
        """Take lines until the end of the input, and return an exit status."""
        with _keyboard(self.locals) if self._interactive else nullcontext(), _shown():
            while True:
                try:
                    self._until_interrupted()
                    return self.status
                except KeyboardInterrupt:
                    self.resetbuffer()
                    self._say("")

    def _until_interrupted(self) -> None:
        with suppress(EOFError, SystemExit):
            more = False
            while self._interactive or not self.status:
                more = self.push(self.raw_input(self._prompt(more)))
        if self._interactive:
            self._say("")

    def _prompt(self, more: bool) -> str:
        if not self._interactive:
            return ""
        self._look_for_end()
        return "... " if more else ">>> "

    def raw_input(self, prompt: str = "") -> str:
        line = input(prompt)
        bare = line.strip().removesuffix("()")
        return f"{bare}()" if bare in BARE and not self.buffer else line

    # ---- what is typed --------------------------------------------------------------------------

    def runcode(self, code: CodeType) -> None:
        """Execute a statement; whatever it raises is told and over."""
        try:
            exec(code, self.locals)
        except SystemExit:
            raise
        except HarnessError as error:
            self._tell(error)
        except KeyboardInterrupt:
            self._say("interrupted; an agent that is still busy answers when it is done")
        except BaseException as error:
            self._fail(1, _short(error))
        self._follow()

    def showsyntaxerror(self, filename: str | None = None, **others: object) -> None:
        kind, error, _ = sys.exc_info()
        self._fail(1, "".join(traceback.format_exception_only(kind, error)).rstrip())

    def _follow(self) -> None:
        """Keep `host` at the session of the kernel that runs."""
        if self._host and (latest := self._host.latest) is not self._host:
            self._host = self.locals["host"] = latest
            self._say("(host is the session of this kernel now)")

    def _tell(self, error: HarnessError) -> None:
        """An error as a line; with what was seen of a kernel that died."""
        dead = isinstance(error, CrashError | BootError | guest_errors.MemoryDiffers)
        detail = "\n".join(error.detail.splitlines()[-DETAIL_LINES:]) if dead else ""
        lines = (f"{type(error).__name__}: {error.message}", error.hint and f"  {error.hint}", detail)
        status = 2 if isinstance(error, UsageError) else 1 if isinstance(error, KernelError) else 3
        self._fail(status, "\n".join(filter(None, lines)))

    def _fail(self, status: int, text: str) -> None:
        self.status = 0 if self._interactive else status
        print(text, file=sys.stderr, flush=True)

    def _look_for_end(self) -> None:
        """Tell of a machine that ended while nothing was asked of it."""
        if not self._ended and (why := self.machine.why_ended()):
            self._ended = True
            self._tell(why)

    # ---- what can be typed ----------------------------------------------------------------------

    def _sh(self, command: str = "") -> None:
        """A root shell in the host, on this terminal; or one command there, and what it says."""
        host = self._need_host()
        if command:
            done = program.run(host, ["/bin/sh", "-c", command], COMMAND_SECONDS)
            self._say(done.output.rstrip("\n"))
            if done.code != 0:
                self._say(f"({done.text})")
            return
        if self.machine.terminal is None:
            raise UsageError("this machine has no second console", hint='sh("COMMAND") runs one command')

        def resize(rows: int, columns: int) -> None:
            with suppress(HarnessError):
                host.latest.call("host.resize_terminal", rows=rows, columns=columns)

        self._say("(Ctrl-] or exit comes back)")
        left = attach(self.machine.terminal, resize)
        self._say(
            "" if left is Left.ENDED else "\n(the shell goes on; sh returns to it)" * (left is Left.KEY)
        )

    def _console(self, count: int = CONSOLE_LINES) -> None:
        """The last lines of the serial console, with seconds since power-on."""
        self._say("\n".join(f"{line.at:10.3f} {line.text}" for line in self.machine.console[-count:]))

    def _dmesg(self, count: int = CONSOLE_LINES) -> None:
        """The last lines of the kernel's log of this boot."""
        self._say("\n".join(self._need_host().kernel_log()[-count:]))

    def _help(self, *subject: object) -> None:
        """What there is at the prompt, or what an object is."""
        if subject:
            import pydoc

            pydoc.help(*subject)
        else:
            self._say(HELP)

    def _need_host(self) -> Session:
        if self._host is None:
            raise UsageError("the kernel did not come up", hint="console() shows what it said")
        return self._host

    def _say(self, text: str) -> None:
        print(text, flush=True)


def _imported() -> dict[str, Any]:
    """What a scenario would import."""
    vms = importlib.import_module("selftests.vms")
    names: dict[str, Any] = {name: getattr(vms, name) for name in HELPERS}
    names.update({name: importlib.import_module(name) for name in ("errno", "signal", "time")})
    return {**names, "KiB": KiB, "MiB": MiB, "GiB": GiB, "raises_errno": guest_errors.raises_errno}


def _short(error: BaseException) -> str:
    """A traceback without the way through the harness: the lines typed, and where it ended."""
    frames = traceback.extract_tb(error.__traceback__)
    typed = [frame for frame in frames if frame.filename == FILE]
    last = frames[-1:] if frames and frames[-1].filename != FILE else []
    places = [
        f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in (*typed[1:], *last)
    ]
    return "\n".join([*places, "".join(traceback.format_exception_only(error)).rstrip()])


@contextmanager
def _shown() -> Iterator[None]:
    """Values are shown in as many lines as they need."""
    before = sys.displayhook

    def show(value: object) -> None:
        if value is not None:
            pprint.pprint(value, width=100, sort_dicts=False)

    sys.displayhook = show
    try:
        yield
    finally:
        sys.displayhook = before


@contextmanager
def _keyboard(names: dict[str, Any]) -> Iterator[None]:
    """Editing, completion, and a history that lasts."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "luh"
    history = state / "shell-history"
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(HISTORY_LENGTH)
    with suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with suppress(OSError):
            state.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
