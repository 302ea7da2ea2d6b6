# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the commits that may be next while another one runs, each in a process and a tree of its own.

usage: python -m harness.bisect.ahead FILE, with a commit's definitions in it, of which the first is built
whose series applies. The kernels are found in the store afterwards, so nothing is handed back, and whoever
needs one that is still being built waits for it there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness import attempt, command
from harness.case import KernelDefinition
from harness.errors import HarnessError, PatchError
from harness.exchange import decode, encode
from harness.store import Store

PLACES = ("ahead-0", "ahead-1", "ahead-2")
# What runs now goes first.
NICENESS = 10


@dataclass(slots=True)
class Ahead:
    """The builds under way. variants: a commit's definitions in a place. Ended by leaving its block."""

    variants: Callable[[str, str], tuple[KernelDefinition, ...]]
    directory: Path
    places: dict[str, str] = field(default_factory=dict)
    _running: dict[str, ExitStack] = field(default_factory=dict)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.foresee("", [])

    def foresee(self, current: str, commits: Sequence[str]) -> None:
        """Build these, and no others any more but the current one, which somebody waits for."""
        for commit in [one for one in self._running if one not in (current, *commits)]:
            self._running.pop(commit).close()
            del self.places[commit]
        self.places = {one: place for one, place in self.places.items() if one in (current, *commits)}
        for commit in commits:
            free = [place for place in PLACES if place not in self.places.values()]
            if commit not in self.places and free:
                self.places[commit] = free[0]
                self._running[commit] = self._start(commit, free[0])

    def _start(self, commit: str, place: str) -> ExitStack:
        file = self.directory / f"{place}.json"
        file.write_text(json.dumps([encode(one) for one in self.variants(commit, place)]), encoding="utf-8")
        stack = ExitStack()
        log = stack.enter_context((self.directory / f"{place}.log").open("wb"))
        argv = (sys.executable, "-P", "-m", "harness.bisect.ahead", str(file))
        root = str(Path(__file__).resolve().parents[2])
        stack.enter_context(command.spawn(argv, env={"PYTHONPATH": root}, stdout=log, stderr=log))
        return stack


def main(file: str) -> int:
    os.nice(NICENESS)
    store = Store.default()
    for data in json.loads(Path(file).read_text(encoding="utf-8")):
        definition = decode(KernelDefinition, data)
        try:
            attempt.build_kernels((definition,), store, attempt.Timeline(lambda update: None))
        except PatchError:
            continue
        except HarnessError as error:
            sys.stderr.write(f"{error.message}\n{error.detail}\n")
            return 1
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
