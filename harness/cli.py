# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: words -> a command; its errors -> an exit status.

Exit status: 0 all passed, 1 something failed or nothing could run, 2 wrong usage, 3 the harness or the
machine broke, 130 and 143 ended by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from harness import __version__
from harness.commands import COMMANDS, WITH_A_HAND, command
from harness.errors import HarnessError, KernelError, UsageError
from harness.options import BROKEN, FAILED, USAGE, Parser, say

if TYPE_CHECKING:
    from harness.hand import Hand

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came; it leaves by the same doors as Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv (sys.argv[1:] if None) names, and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _for_git(words, _main(words))
    except SystemExit as mistake:
        sys.exit(_for_git(words, mistake.code) if isinstance(mistake.code, int) else mistake.code)


def _for_git(words: list[str], status: int) -> int:
    """The exit status that `git bisect run` understands, where that is who asks."""
    if words[:1] != ["bisect"]:
        return status
    from harness.commands import bisect

    return bisect.for_git(words, status)


def _main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in argv
    try:
        with _hand(argv) as hand:
            options = parse(argv)
            options.hand = hand
            return int(options.run(options))
    except HarnessError as error:
        if debug:
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
        if debug:
            raise
        say(f"a mistake of the harness itself: {type(error).__name__}: {error}", "--debug shows where")
        return BROKEN


@contextmanager
def _hand(argv: list[str]) -> Iterator[Hand | None]:
    """A process for the scenarios of a command that has some, started before its words are understood."""
    if not argv or argv[0] not in WITH_A_HAND or {"-h", "--help"} & set(argv):
        yield None
        return
    from harness.hand import ready
    from harness.layout import Layout

    with ready(Layout.here()) as hand:
        yield hand


def parse(argv: list[str]) -> argparse.Namespace:
    """The words as a namespace whose `run` is the command's function; exits with status 2 on a mistake.

    `rest` has what a command that passes words on does not know itself. Of the commands only those are
    imported whose names are among the words.
    """
    parser = Parser(
        prog="luh",
        description="The Live Update Harness: builds a Linux kernel, live-updates a host of virtual machines"
        " with it, and proves that every byte of their memory came through.",
    )
    parser.add_argument("--version", action="version", version=f"luh {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (_, text) in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in argv:
            one.add_argument("--debug", action="store_true", help="show a traceback for every error")
            one.set_defaults(run=command(name).run, passes_on=False)
            command(name).add(one)
    options, rest = parser.parse_known_args(argv)
    if rest and not options.passes_on:
        commands.choices[options.command].error(f"unknown: {' '.join(rest)}")
    options.rest = rest
    return options


def _status(error: HarnessError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return FAILED if isinstance(error, KernelError) else BROKEN


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(signal.Signals(number).name)


if __name__ == "__main__":
    status = main()
    gc.freeze()  # the interpreter would look through all that there is for garbage, several times
    sys.exit(status)
