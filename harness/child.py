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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from harness import command
from harness.case import Bench
from harness.errors import DeadlineError
from harness.exchange import Event, Kept, encode, read_event
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
    Raises DeadlineError when the process falls silent; it is gone in any case.
    """
    file = bench.directory / "bench.json"
    file.write_text(json.dumps(encode(bench), indent=2) + "\n", encoding="utf-8")
    with (bench.directory / LOG).open("wb") as log, _pipe() as (source, sink):
        options: tuple[str, ...] = (
            "--luh-bench",
            str(file),
            "--luh-events",
            str(sink.fileno()),
            "--luh-began",
            str(began),
        )
        inherited = [sink.fileno()]
        if desk:
            options += ("--luh-desk", str(desk.descriptor))
            inherited.append(desk.descriptor)
        argv = (
            sys.executable,
            "-m",
            "pytest",
            *OPTIONS,
            "--rootdir",
            str(layout.scenarios),
            *options,
            *nodes,
        )
        environment = {**ENVIRONMENT, "PYTHONPATH": str(layout.root)}
        with command.spawn(argv, env=environment, pass_fds=inherited, stdout=log, stderr=log) as child:
            sink.close()
            for line in _lines(source, SILENCE_SECONDS * bench.time_scale):
                event = read_event(line)
                on_event(event)
                if desk and isinstance(event, Kept):
                    desk.serve(source.fileno())
            return _wait(child)


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as reader, os.fdopen(sink, "wb", buffering=0) as writer:
        yield reader, writer


def _lines(source: IO[bytes], patience: float) -> Iterator[str]:
    """The lines that come until the other end is closed, each at most so many seconds after the last."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while selector.select(patience):
            chunk = os.read(source.fileno(), 1 << 16)
            if not chunk:
                return
            *whole, pending = (pending + chunk).split(b"\n")
            yield from (line.decode() for line in whole)
    raise DeadlineError(f"the scenarios' process said nothing for {patience:.0f} seconds")


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"the scenarios' process did not end within {END_SECONDS:.0f} seconds") from None
