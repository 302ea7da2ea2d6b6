# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenarios in a pytest process of their own and passes on what it tells.

A process, because a scenario may do anything to its interpreter, and because ending a process is the one
sure way to stop it.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness import command
from harness.case import Bench
from harness.errors import DeadlineError
from harness.exchange import Collected, Event, Kept, Uncollected, encode, read_event
from harness.layout import Layout

if TYPE_CHECKING:
    from harness.shell.desk import Desk

# No scenario is silent for longer: each of its steps has a shorter deadline of its own.
SILENCE_SECONDS = 300.0
END_SECONDS = 30.0
LOG, BENCH = "pytest.log", "bench.json"

# What the user set for pytest elsewhere must not change what a scenario means.
ENVIRONMENT = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": ""}
OPTIONS = (
    *("-c", os.devnull, "--strict-markers", "--import-mode=importlib", "-q", "--no-header", "--tb=short"),
    *("-p", "harness.plugin", "-p", "no:cacheprovider", "-p", "no:junitxml", "-p", "no:faulthandler"),
    # What no scenario has a use for and takes long to import, or at the end to collect garbage: Python tells
    # of exceptions that nobody could catch by itself.
    *("-p", "no:unittest", "-p", "no:debugging", "-p", "no:unraisableexception"),
)


@contextmanager
def hired(
    nodes: tuple[str, ...], layout: Layout, directory: Path, began: float, desk: Desk | None = None
) -> Iterator[Crew]:
    """Processes for what pytest finds for the nodes; they are gone when the block is left.

    The first one starts at once, and is ready to run scenarios by the time that the bench is made.
    directory: the run's; what pytest prints goes to pytest.log in it. began: the attempt's start on the
    monotonic clock. desk: where somebody sits who wants a prompt at a failure.
    """
    # Without confcutdir pytest lists all folders from / down, and takes a conftest.py of each.
    here = ("--rootdir", str(layout.scenarios), "--confcutdir", str(layout.scenarios))
    options = ("--luh-began", str(began), *here, *nodes)
    with ExitStack() as stack:
        log = stack.enter_context((directory / LOG).open("wb"))
        common = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        source, sink = stack.enter_context(_pipe())
        crew = Crew(stack, log, common, options, str(layout.root), directory / BENCH, sink, desk)
        try:
            crew.hire(f"/dev/fd/{source.fileno()}", source.fileno(), desk=desk)
            source.close()
            yield crew
        finally:
            command.end([child.process for child in crew.children])


@dataclass(slots=True)
class _Child:
    """A process that runs scenarios, and where its events come from."""

    process: subprocess.Popen[bytes]
    source: IO[bytes]
    pending: bytes = b""

    def events(self) -> list[Event] | None:
        """What it told since; None when it will not tell any more."""
        chunk = os.read(self.source.fileno(), 1 << 16)
        if not chunk:
            return None
        *whole, self.pending = (self.pending + chunk).split(b"\n")
        return [read_event(line.decode()) for line in whole]


@dataclass(slots=True)
class Crew:
    """Processes that share scenarios; the stack ends them.

    common: the file that all of them have. file: where the bench is kept, and where all but the first read
    it; given: what the first one reads it from.
    """

    stack: ExitStack
    log: IO[bytes]
    common: IO[bytes]
    arguments: tuple[str, ...]
    root: str
    file: Path
    given: IO[bytes]
    desk: Desk | None
    children: list[_Child] = field(default_factory=list)

    def begin(self, bench: Bench) -> None:
        """Have the first process collect its scenarios and run them."""
        text = json.dumps(encode(bench), indent=2) + "\n"
        self.file.write_text(text, encoding="utf-8")
        with suppress(BrokenPipeError), self.given:  # what ended it is in its log
            self.given.write(text.encode())

    def follow(self, bench: Bench, on_event: Callable[[Event], None]) -> int:
        """Pass on what they tell until all have ended, and return pytest's exit status.

        As many processes as the bench has jobs share the scenarios; the first one's word counts for what
        there is. Raises DeadlineError when all fall silent.
        """
        (first,) = self.children
        for child, event in self.events(SILENCE_SECONDS * bench.time_scale):
            if child is first or not isinstance(event, Collected | Uncollected):
                on_event(event)
            if child is first and isinstance(event, Collected):
                for _ in range(1, min(bench.jobs, len(event.names))):
                    self.hire(str(self.file))
            if self.desk and isinstance(event, Kept):
                self.desk.serve(child.source.fileno())
        return max(_wait(child.process) for child in self.children)

    def hire(self, bench: str, *inherited: int, desk: Desk | None = None) -> None:
        """Start another process, which reads the bench from that path."""
        source, sink = self.stack.enter_context(_pipe())
        descriptors = {"events": sink.fileno(), "common": self.common.fileno()}
        if desk:
            descriptors["desk"] = desk.descriptor
        options = [word for name, number in descriptors.items() for word in (f"--luh-{name}", str(number))]
        argv = (sys.executable, "-m", "pytest", *OPTIONS, "--luh-bench", bench, *options, *self.arguments)
        environment = {**ENVIRONMENT, "PYTHONPATH": self.root}
        process = self.stack.enter_context(
            command.spawn(
                argv,
                env=environment,
                pass_fds=[*inherited, *descriptors.values()],
                stdout=self.log,
                stderr=self.log,
            )
        )
        sink.close()
        self.children.append(_Child(process, source))

    def events(self, patience: float) -> Iterator[tuple[_Child, Event]]:
        """All events as they come, until no process will tell any more."""
        with selectors.DefaultSelector() as selector:
            ended: list[_Child] = []
            while len(ended) < len(self.children):
                for child in self.children[len(selector.get_map()) + len(ended) :]:
                    selector.register(child.source, selectors.EVENT_READ, child)
                ready = selector.select(patience)
                if not ready:
                    raise DeadlineError(f"the scenarios' process said nothing for {patience:.0f} seconds")
                for key, _ in ready:
                    child = key.data
                    events = child.events()
                    if events is None:
                        selector.unregister(child.source)
                        ended.append(child)
                    yield from ((child, event) for event in events or ())


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as reader, os.fdopen(sink, "wb", buffering=0) as writer:
        yield reader, writer


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"the scenarios' process did not end within {END_SECONDS:.0f} seconds") from None
