# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's init, as pid 1 of a namespace: it starts the agent, and starts it again when it died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness.command import run, spawn
from harness.deadline import Deadline
from harness.image.recipe import Recipe

SECONDS = 30.0
# Reports its pid and the zombies there are, leaves an orphan behind, and is killed.
AGENT = "echo $$ $(grep -l ^State:.Z /proc/[0-9]*/status | wc -l) > /proc/self/fd/%d; sleep 0.05 & kill -9 $$"


def compiled(source: Path, agent: str, target: Path) -> Path:
    argv = ", ".join(f'"{word}"' for word in ("/bin/sh", "-c", agent))
    defines = [f"-DAGENT_ARGV={argv}", '-DLIBRARY_PATH="/lib"']
    run(
        ["gcc", "-static", *defines, "-o", target, source], deadline=Deadline.after(SECONDS, "compiling init")
    )
    return target


def test_a_killed_agent_comes_back_and_orphans_are_reaped(
    minimal: Recipe, namespaces: tuple[str, ...], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    init = compiled(minimal.init, AGENT % writer, tmp_path / "init")
    with os.fdopen(reader) as reports, spawn([*namespaces, init], pass_fds=(writer,)) as child:
        os.close(writer)
        lives = [reports.readline().split() for _ in range(3)]
        os.killpg(child.pid, signal.SIGKILL)
    pids, zombies = zip(*lives, strict=True)
    assert len(set(pids)) == 3
    assert set(zombies) == {"0"}
