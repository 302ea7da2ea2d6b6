# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's init, as pid 1 of a namespace: it starts the agent, and starts it again when it died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness.command import spawn
from harness.image.build import compile_init
from harness.image.recipe import Recipe

# Reports its pid and the zombies there are, leaves an orphan behind, and is killed.
AGENT = "echo $$ $(grep -l ^State:.Z /proc/[0-9]*/status | wc -l) > /proc/self/fd/%d; sleep 0.05 & kill -9 $$"


def lives(source: Path, kept: tuple[str, ...], namespaces: tuple[str, ...], folder: Path) -> list[list[str]]:
    """What the first three agents report. kept: a program before the words that start one anew."""
    reader, writer = os.pipe()
    program = folder / "init"
    compile_init(source, (*kept, "/bin/sh", "-c", AGENT % writer), "/lib", program)
    with os.fdopen(reader) as reports, spawn([*namespaces, program], pass_fds=(writer,)) as child:
        os.close(writer)
        found = [reports.readline().split() for _ in range(3)]
        os.killpg(child.pid, signal.SIGKILL)
    return found


def test_a_killed_agent_comes_back_and_orphans_are_reaped(
    minimal: Recipe, namespaces: tuple[str, ...], tmp_path: Path
) -> None:
    pids, zombies = zip(*lives(minimal.init, (), namespaces, tmp_path), strict=True)
    assert len(set(pids)) == 3
    assert set(zombies) == {"0"}


def test_an_agent_that_cannot_go_on_is_started_anew(
    minimal: Recipe, namespaces: tuple[str, ...], tmp_path: Path
) -> None:
    assert all(lives(minimal.init, ("/bin/false",), namespaces, tmp_path))
