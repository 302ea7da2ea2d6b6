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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

from harness import command
from harness.case import Bench
from harness.errors import DeadlineError
from harness.exchange import Collected, Event, Kept, Uncollected, encode, read_event
from harness.layout import Layout
from harness.shell.desk import Desk

# No scenario is silent for longer: each of its steps has a shorter deadline of its own.
SILENCE_SECONDS = 300.0
END_SECONDS = 30.0
LOG = "pytest.log"

# What the user set for pytest elsewhere must not change what a scenario means.
ENVIRONMENT = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": ""}
OPTIONS = (
    *("-c", os.devnull, "--strict-markers", "--import-mode=importlib", "-q", "--no-header", "--tb=short"),
    *("-p", "harness.plugin", "-p", "no:cacheprovider", "-p", "no:junitxml", "-p", "no:faulthandler"),
)


def run_scenarios(
    bench: Bench,
    nodes: tuple[str, ...],
    layout: Layout,
    began: float,
    on_event: Callable[[Event], None],
    desk: Desk | None = None,
) -> int:
    """Run what pytest finds for the nodes, and return pytest's exit status.

    began: the attempt's start on the monotonic clock. What pytest prints goes to pytest.log in
    bench.directory. desk: where somebody sits who wants a prompt at a failure.
    As many processes as the bench has jobs share the scenarios; the first one's word counts for what there
    is. Raises DeadlineError when all fall silent; they are gone in any case.
    """
    file = bench.directory / "bench.json"
    file.write_text(json.dumps(encode(bench), indent=2) + "\n", encoding="utf-8")
    options = ("--luh-bench", str(file), "--luh-began", str(began), "--rootdir", str(layout.scenarios))
    with ExitStack() as stack:
        log = stack.enter_context((bench.directory / LOG).open("wb"))
        common = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        crew = _Crew(stack, log, common, (*options, *nodes), str(layout.root))
        try:
            _follow(crew, bench, on_event, desk)
            return max(_wait(child.process) for child in crew.children)
        finally:
            command.end([child.process for child in crew.children])


def _follow(crew: _Crew, bench: Bench, on_event: Callable[[Event], None], desk: Desk | None) -> None:
    first = crew.hire(desk)
    for child, event in crew.events(SILENCE_SECONDS * bench.time_scale):
        if child is first or not isinstance(event, Collected | Uncollected):
            on_event(event)
        if child is first and isinstance(event, Collected):
            for _ in range(1, min(bench.jobs, len(event.names))):
                crew.hire(None)
        if desk and isinstance(event, Kept):
            desk.serve(child.source.fileno())


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
class _Crew:
    """Processes that share scenarios; the stack ends them. common: the file that all of them have."""

    stack: ExitStack
    log: IO[bytes]
    common: IO[bytes]
    arguments: tuple[str, ...]
    root: str
    children: list[_Child] = field(default_factory=list)

    def hire(self, desk: Desk | None) -> _Child:
        """Start another process."""
        source, sink = self.stack.enter_context(_pipe())
        inherited = [sink.fileno(), self.common.fileno()]
        options: tuple[str, ...] = ("--luh-events", str(inherited[0]), "--luh-common", str(inherited[1]))
        if desk:
            options += ("--luh-desk", str(desk.descriptor))
            inherited.append(desk.descriptor)
        argv = (sys.executable, "-m", "pytest", *OPTIONS, *options, *self.arguments)
        environment = {**ENVIRONMENT, "PYTHONPATH": self.root}
        process = self.stack.enter_context(
            command.spawn(argv, env=environment, pass_fds=inherited, stdout=self.log, stderr=self.log)
        )
        sink.close()
        self.children.append(_Child(process, source))
        return self.children[-1]

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
