# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: words -> a command; its errors -> an exit status.

Exit status: 0 all passed, 1 something failed or nothing could run, 2 wrong usage, 3 the harness or the
machine broke, 130 and 143 ended by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from harness import __version__
from harness.case import Outcome
from harness.commands import (
    bench,
    bisect,
    build,
    check_series,
    doctor,
    history,
    kselftest,
    listing,
    matrix,
    merge,
    qualify,
    repro,
    rules,
    run,
    shell,
    test,
)
from harness.errors import HarnessError, KernelError, UsageError
from harness.options import BROKEN, STATUS, USAGE, Parser, say

# In the order of `luh --help`.
COMMANDS = (
    run,
    repro,
    shell,
    check_series,
    kselftest,
    bisect,
    qualify,
    matrix,
    merge,
    history,
    build,
    listing,
    bench,
    rules,
    doctor,
    test,
)
INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came; it leaves by the same doors as Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv (sys.argv[1:] if None) names, and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return bisect.for_git(words, _main(words))
    except SystemExit as mistake:
        sys.exit(bisect.for_git(words, mistake.code) if isinstance(mistake.code, int) else mistake.code)


def _main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    options = parse(argv)
    try:
        return int(options.run(options))
    except HarnessError as error:
        if options.debug:
            raise
        say(error.message, error.hint, error.detail)
        return _status(error)
    except KeyboardInterrupt as signalled:
        terminated = isinstance(signalled, Terminated)
        say("terminated" if terminated else "interrupted", *getattr(signalled, "__notes__", ()))
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        say(f"a mistake of the harness itself: {type(error).__name__}: {error}", "--debug shows where")
        return BROKEN


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The words as a namespace whose `run` is the command's function; exits with status 2 on a mistake.

    `rest` has what a command that passes words on does not know itself.
    """
    parser = Parser(
        prog="luh",
        description="The Live Update Harness: builds a Linux kernel, live-updates a host of virtual machines"
        " with it, and proves that every byte of their memory came through.",
    )
    parser.add_argument("--version", action="version", version=f"luh {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for one in COMMANDS:
        one.add(commands)
    options, rest = parser.parse_known_args(argv)
    if rest and not options.passes_on:
        commands.choices[options.command].error(f"unknown: {' '.join(rest)}")
    options.rest = rest
    return options


def _status(error: HarnessError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return STATUS[Outcome.FAIL] if isinstance(error, KernelError) else BROKEN


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
