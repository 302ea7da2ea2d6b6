# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's own tests, as `luh test` runs them: format, lint, types, then pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from harness import command
from harness.deadline import Deadline
from harness.errors import DeadlineError
from harness.layout import Layout

LINT_SECONDS = 600.0
# With the lanes, of which the one with every check takes hours (tests/integration/test_lanes.py).
TEST_SECONDS = 12 * 3600.0
CHECKS = (
    ("format", ("ruff", "format", "--check", "--quiet", ".")),
    ("lint", ("ruff", "check", "--quiet", ".")),
    ("types", ("mypy", "--strict")),
)
QUICK = ("-m", "not long")
# pytest's own statuses for an interruption, a mistake in its arguments, and for having found no test.
STATUS = {0: 0, 1: 1, 2: 130, 4: 2, 5: 2}


def test(layout: Layout, arguments: tuple[str, ...], *, everything: bool, say: Callable[[str], None]) -> int:
    """Run the checks and then pytest with the arguments; returns the exit status.

    With arguments the checks are left out, because somebody looks at one thing. everything: also the tests
    that are marked as long. Output goes where ours goes, failures of the checks to `say`.
    """
    if not arguments and not _checked(layout, say):
        return 1
    argv = (sys.executable, "-m", "pytest", *(() if everything else QUICK), *arguments)
    with command.spawn(argv, cwd=layout.root, stdout=1, stderr=2) as child:
        try:
            return STATUS.get(child.wait(TEST_SECONDS), 3)
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"the tests did not end within {TEST_SECONDS / 3600:.0f} hours") from None


def _checked(layout: Layout, say: Callable[[str], None]) -> bool:
    """Run all checks, so that one run shows all that is wrong."""
    good = True
    for name, argv in CHECKS:
        deadline = Deadline.after(LINT_SECONDS, f"the check of {name}")
        done = command.run((sys.executable, "-m", *argv), cwd=layout.root, deadline=deadline, check=False)
        good = good and done.status == 0
        say(f"{name}: {'ok' if done.status == 0 else done.output}")
    return good
