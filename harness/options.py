# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line: what can be said, and what is wrong with what was said."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness import __version__
from harness.case import Accelerator, GiB, KiB, MachineSpec, MiB

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["_Parser"]

DEFAULT_KERNEL = "linux-7.3"
USAGE = 2
UNITS = {"": 1, "K": KiB, "M": MiB, "G": GiB}
SMALLEST_MEMORY = 256 * MiB


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The words as a namespace whose `command` is the command's name; exits with status 2 on a mistake.

    `pytest` has what `luh test` does not know itself.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "test":
        parser.error(f"unknown: {' '.join(rest)}")
    options.pytest = rest
    return options


def say(message: str, hint: str = "", detail: str = "") -> None:
    """A message on stderr, with what helps below it."""
    lines = [line for text in (message, hint, detail) for line in text.splitlines()]
    print("luh: " + "\n     ".join(lines), file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line and a hint, not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        say(message, f"`{self.prog} --help` shows what there is")
        sys.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="luh",
        description="The Live Update Harness: builds a Linux kernel, live-updates a host of virtual machines"
        " with it, and proves that every byte of their memory came through.",
    )
    parser.add_argument("--version", action="version", version=f"luh {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_build(commands)
    _add_list(commands)
    _add_bench(commands)
    _add_rules(commands)
    _add_doctor(commands)
    _add_test(commands)
    return parser


def _add(commands: Commands, name: str, text: str) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="show a traceback for every error")
    parser.set_defaults(command=name)
    return parser


def _add_run(commands: Commands) -> None:
    parser = _add(commands, "run", "build the kernels, and run scenarios on them")
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="a subject (basic), a function, FILE::FUNCTION[PARAMETER], a rule of the contract (K3), a file"
        " of your own, or all; `luh list` names them (default: basic)",
    )
    parser.add_argument("--all", action="store_true", help="also those that take long")
    _add_kernel_options(parser)
    parser.add_argument("--next-kernel", metavar="NAME", help="the kernel to update to (default: the same)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--accel", default="auto", choices=[str(one) for one in Accelerator], help="(auto)")
    machine.add_argument("--memory", type=_memory, default=MachineSpec().memory, help="of the host (1G)")
    machine.add_argument("--cpus", type=_positive, default=MachineSpec().cpus, help="of the host (2)")
    parser.add_argument("--seed", type=int, default=1, help="of every pattern and random choice (1)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    parser.add_argument("--json", action="store_true", help="print result.json; progress goes to stderr")
    _add_install(parser)
    _add_color(parser)


def _add_kernel_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kernel")
    group.add_argument(
        "--kernel",
        metavar="NAME",
        default=DEFAULT_KERNEL,
        help=f"a definition of kernel-configs/, or a YAML file of your own ({DEFAULT_KERNEL})",
    )
    group.add_argument(
        "--tree", metavar="DIR", type=Path, help="build this kernel tree; it is not written to"
    )
    group.add_argument(
        "--series",
        metavar="DIR|ours|none",
        help="patches to apply: a folder of your own, ours, or none (the definition's; with --tree: none)",
    )


def _add_build(commands: Commands) -> None:
    parser = _add(commands, "build", "build a kernel, and say where it is")
    _add_kernel_options(parser)
    _add_install(parser)
    _add_color(parser)


def _add_list(commands: Commands) -> None:
    _add_color(_add(commands, "list", "list kernels, scenarios and images"))


def _add_rules(commands: Commands) -> None:
    parser = _add(commands, "rules", "list the contract's rules, who checks them, and what came of it last")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    _add_color(parser)


def _add_bench(commands: Commands) -> None:
    parser = _add(commands, "bench", "measure how long things take; prints medians")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="boot, kexec, run, build (default: these four; build takes long); or preserve: what the live"
        " update of a guest_memfd costs, against a memfd with as many pages",
    )
    parser.add_argument("-n", type=_positive, default=5, dest="count", help="how often (5)")
    group = parser.add_argument_group("preserve")
    group.add_argument("--kernel", metavar="NAME", default=DEFAULT_KERNEL, help="whose costs (linux-7.3)")
    group.add_argument(
        "--largest",
        metavar="SIZE",
        type=_size,
        default=4 * GiB,
        help="of the files (4G, for which the machine has to have 10G free)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_color(parser)


def _add_doctor(commands: Commands) -> None:
    parser = _add(commands, "doctor", "say what this machine has and lacks, and how to get it")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_color(parser)


def _add_test(commands: Commands) -> None:
    parser = _add(commands, "test", "run the project's own tests")
    parser.add_argument("--all", action="store_true", help="also those that take long")
    parser.epilog = "Everything else is passed on to pytest."
    _add_install(parser)


def _add_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--install",
        action="store_true",
        help="install missing packages of the distribution (root does anyway)",
    )


def _add_color(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--color", action=argparse.BooleanOptionalAction, help="colours (in terminals)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _memory(text: str) -> int:
    """A size that a host can live with."""
    size = _size(text)
    if size < SMALLEST_MEMORY:
        raise argparse.ArgumentTypeError(f"{text} is too little: a host needs at least 256M")
    return size


def _size(text: str) -> int:
    """ "1G", "512M"; bytes without a unit."""
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512M or 2G")
    return int(match[1]) * UNITS[match[2].upper()]
