# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line: what all commands share, and what is wrong with what was said."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

DEFAULT_KERNEL = "linux-7.3"
DEFAULT_RECIPE = "minimal"
SHELL_RECIPE = "shell"
SMALLEST_MEMORY = "256M"
UNITS = ("", "K", "M", "G")
FAILED, USAGE, BROKEN = 1, 2, 3


def say(message: str, hint: str = "", detail: str = "") -> None:
    """A message on stderr, with what helps below it."""
    lines = [line for text in (message, hint, detail) for line in text.splitlines()]
    print("luh: " + "\n     ".join(lines), file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line and a hint, not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        say(message, f"`{self.prog} --help` shows what there is")
        sys.exit(USAGE)


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def memory(text: str) -> int:
    """A size that a host can live with."""
    found = size(text)
    if found < size(SMALLEST_MEMORY):
        raise argparse.ArgumentTypeError(f"{text} is too little: a host needs at least {SMALLEST_MEMORY}")
    return found


def size(text: str) -> int:
    """ "1G", "512M"; bytes without a unit."""
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512M or 2G")
    return int(match[1]) << 10 * UNITS.index(match[2].upper())
