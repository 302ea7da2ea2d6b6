# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios on machines elsewhere: what becomes of the bench, and who says what can be done there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness import slots
from harness.case import Accelerator, AcceleratorChoice, Bench, Progress, Remote, Target, Update
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.exchange import encode
from harness.image import build as image_build
from harness.image import recipe as image_recipe
from harness.layout import Layout
from harness.machine import probe
from harness.slots import Room
from harness.store import Store

CONNECT_SECONDS = 30.0
COPY_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where scenarios run. choose: which accelerator; equip: what the bench needs for the place; room: for
    how many machines that is one."""

    choose: Callable[[Accelerator, Deadline], AcceleratorChoice] = probe.choose
    equip: Callable[[Bench], Bench] = lambda bench: bench
    room: Callable[[], Room] = slots.here


HERE = Place()


def target(remote: Remote, recipe: str, layout: Layout, store: Store) -> Place:
    """A real machine, without QEMU."""

    def choose(requested: Accelerator, deadline: Deadline) -> AcceleratorChoice:
        if requested is not Accelerator.AUTO:
            raise UsageError("a real machine has no accelerator to choose", hint="leave out --accel")
        from harness.ssh.connection import connected

        with connected(remote, deadline) as connection:
            said = connection.run("uname -r", deadline).strip()
        return AcceleratorChoice(Accelerator.REAL, f"{remote}, found running Linux {said}")

    def equip(bench: Bench) -> Bench:
        bundle = image_build.bundle(image_recipe.load(recipe, layout.recipes), store)
        return replace(bench, target=Target(remote, bundle))

    return Place(choose, equip, lambda: Room(cpus=1, available=0, load=0.0))


def host(remote: Remote, progress: Progress) -> Place:
    """QEMU on another machine, with kernels and image copied there."""
    from harness.ssh import runner  # an SSH library takes longer to import than all else of a run

    def choose(requested: Accelerator, deadline: Deadline) -> AcceleratorChoice:
        choice = runner.choose(remote, requested, deadline)
        return replace(choice, reason=f"{choice.reason} ({remote})")

    def equip(bench: Bench) -> Bench:
        deadline = Deadline.after(COPY_SECONDS, f"copying to {remote}")
        files = (bench.kernel.vmlinux, bench.image.path, bench.next_kernel.bzimage)
        progress(Update("copy", f"to {remote}"))
        paths = runner.copy(remote, files, deadline)
        progress(Update("copy", f"kernels and image to {remote}", finished=True))
        launcher = (
            *(sys.executable, "-P", "-m", "harness.ssh.launcher"),
            json.dumps(encode(remote)),
            json.dumps({str(here): there for here, there in paths.items()}),
        )
        return replace(bench, launcher=launcher)

    return Place(
        choose, equip, lambda: runner.room(remote, Deadline.after(CONNECT_SECONDS, f"asking {remote}"))
    )
