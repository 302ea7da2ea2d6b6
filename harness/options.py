# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line: what all commands share, and what is wrong with what was said."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from harness.case import GiB, KiB, MiB, Outcome

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]
else:
    Commands = argparse.Action

DEFAULT_KERNEL = "linux-7.3"
DEFAULT_RECIPE = "minimal"
SHELL_RECIPE = "shell"
STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.SKIP: 1, Outcome.BROKEN: 3}
USAGE, BROKEN = 2, 3
UNITS = {"": 1, "K": KiB, "M": MiB, "G": GiB}
SMALLEST_MEMORY = 256 * MiB


def say(message: str, hint: str = "", detail: str = "") -> None:
    """A message on stderr, with what helps below it."""
    lines = [line for text in (message, hint, detail) for line in text.splitlines()]
    print("luh: " + "\n     ".join(lines), file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line and a hint, not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        say(message, f"`{self.prog} --help` shows what there is")
        sys.exit(USAGE)


def command(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Parser:
    """The parser of a command; the namespace that it makes has the command's function as `run`."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="show a traceback for every error")
    parser.set_defaults(run=run, passes_on=False)
    return parser


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def memory(text: str) -> int:
    """A size that a host can live with."""
    found = size(text)
    if found < SMALLEST_MEMORY:
        raise argparse.ArgumentTypeError(f"{text} is too little: a host needs at least 256M")
    return found


def size(text: str) -> int:
    """ "1G", "512M"; bytes without a unit."""
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512M or 2G")
    return int(match[1]) * UNITS[match[2].upper()]
