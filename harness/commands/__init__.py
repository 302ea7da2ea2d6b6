# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `luh`, a module each: `add` gives the parser its words, `run` does it and returns a status.

What several commands say in the same words is in `kernels` (which kernel), `machines` (which machine) and
`output` (how it is shown). Only the module of the command that was given is imported, and in it what costs
time inside `run`, so that `luh --help` and a misspelt word cost nothing.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

from harness.options import Parser

# In the order of `luh --help`: the module of each, and what it does.
COMMANDS = {
    "run": ("run", "build the kernels, and run scenarios on them"),
    "repro": ("repro", "run the case of an earlier run again, or pack it for a mail"),
    "shell": ("shell", "boot a host, and give a prompt there"),
    "check-series": ("check_series", "check a series patch by patch"),
    "kselftest": (
        "kselftest",
        "run the kernel's own tests (tools/testing/selftests), live updates included",
    ),
    "bisect": ("bisect", "find the commit, patch or option that breaks a scenario"),
    "qualify": (
        "qualify",
        "say whether hosts can be live-updated from one kernel to another, and what is lost if not",
    ),
    "matrix": ("matrix", "run scenarios on every pair of kernels, configuration and machine of a plan"),
    "merge": ("merge", "join the results that several machines found of a matrix"),
    "history": ("history", "say what is new since the last good night: failures, flakes, slowdowns"),
    "build": ("build", "build a kernel, and say where it is"),
    "list": ("listing", "list kernels, scenarios and images"),
    "bench": ("bench", "measure how long things take; prints medians"),
    "rules": ("rules", "list the contract's rules, who checks them, and what came of it last"),
    "doctor": ("doctor", "say what this machine has and lacks, and how to get it"),
    "test": ("test", "run the project's own tests"),
}

# Whose scenarios need a process that takes as long to start as all else takes before it has work.
WITH_A_HAND = ("run",)


class Command(Protocol):
    """What each of those modules is."""

    def add(self, parser: Parser) -> None:
        """Give the command's parser its words."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; returns the exit status."""


def command(name: str) -> Command:
    """The module of a command."""
    return cast(Command, import_module(f"harness.commands.{COMMANDS[name][0]}"))
