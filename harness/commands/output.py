# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command shows what it does: its words for that, consoles, and progress."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.case import Case, Outcome, Progress, Verdict
from harness.options import BROKEN, FAILED

if TYPE_CHECKING:
    from rich.console import Console

STATUS = {Outcome.PASS: 0, Outcome.FAIL: FAILED, Outcome.SKIP: FAILED, Outcome.BROKEN: BROKEN}


def add_color(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--color", action=argparse.BooleanOptionalAction, help="colours (in terminals)")


def add_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--install",
        action="store_true",
        help="install missing packages of the distribution (root does anyway)",
    )


def stdout(options: argparse.Namespace) -> Console:
    """The console for a command's result."""
    from harness.report import terminal

    return terminal.console(sys.stdout, color=options.color)


def stderr(options: argparse.Namespace) -> Console:
    """The console for what is not the result."""
    from harness.report import terminal

    return terminal.console(sys.stderr, color=options.color)


def note(text: str) -> None:
    """Something that a person has to know at once, on stderr; nothing for "".

    Its lines are sentences, broken where the terminal ends; indented ones are to be copied, and stay whole.
    """
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    for line in text.splitlines():
        whole = line.startswith(" ") or not width
        print(line if whole else textwrap.fill(line, width), file=sys.stderr, flush=True)


@contextmanager
def progress(console: Console, *, live: bool = True) -> Iterator[Progress]:
    """Show the stages on that console while the block lasts; not live, where others write on it too."""
    from harness.report.progress import display

    with display(console, live=live) as shown:
        yield shown


def ensure_tools(options: argparse.Namespace, progress: Progress, *further: str) -> None:
    """Have the programs installed that a build and a run need, and further ones, where that is allowed."""
    from harness import doctor

    doctor.ensure(doctor.TOOLS, allowed=options.install, progress=progress)
    doctor.need(further, allowed=options.install, progress=progress)


def conclude(options: argparse.Namespace, console: Console, case: Case, verdict: Verdict) -> int:
    """Show the verdict, with --json also as result.json; the exit status."""
    from harness.report import files, summary

    summary.show(console, verdict)
    if options.json:
        sys.stdout.write(files.result_json(case, verdict))
        sys.stdout.flush()
    return STATUS[verdict.outcome]
