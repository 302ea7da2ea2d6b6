# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch's form, as the tree's own scripts/checkpatch.pl judges it."""

from __future__ import annotations

import re
from pathlib import Path

from harness import command
from harness.case import SourceTree
from harness.deadline import Deadline
from harness.errors import InfraError

SECONDS = 120.0
OPTIONS = ("--strict", "--terse", "--show-types", "--no-summary", "--mailback")
COMPLAINT = re.compile(r".*?:(?P<line>\d+): (?P<text>(?:ERROR|WARNING|CHECK):.*)")


def complaints(tree: SourceTree, patch: Path) -> tuple[str, ...]:
    """What is wrong with the patch's form: "line 75: ERROR:CODE_INDENT: code indent should use tabs".

    Empty also where the tree has no checkpatch.pl. Raises InfraError where it does not run.
    """
    script = tree.path / "scripts/checkpatch.pl"
    if not script.is_file():
        return ()
    # A relative path would be taken for one inside the tree.
    argv: list[str | Path] = ["perl", script, *OPTIONS, f"--root={tree.path}", patch.resolve()]
    done = command.run(
        argv, cwd=tree.path, deadline=Deadline.after(SECONDS, f"checkpatch of {patch.name}"), check=False
    )
    found = [match for match in map(COMPLAINT.fullmatch, done.output.splitlines()) if match]
    if done.status not in (0, 1) or bool(done.status) != bool(found):
        raise InfraError(f"checkpatch.pl ended with status {done.status} for {patch.name}", detail=done.tail)
    return tuple(f"line {match['line']}: {match['text']}" for match in found)
