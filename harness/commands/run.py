# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh run`: build the kernels, and run scenarios on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.case import Case
from harness.commands import kernels, machines, output
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, Commands, command
from harness.store import Store


def add(commands: Commands) -> None:
    parser = command(commands, "run", "build the kernels, and run scenarios on them", run)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="a subject (basic), a function, FILE::FUNCTION[PARAMETER], a rule of the contract (K3), a file"
        " of your own, or all; `luh list` names them (default: basic)",
    )
    parser.add_argument("--all", action="store_true", help="also those that take long")
    kernels.add(parser)
    parser.add_argument("--next-kernel", metavar="NAME", help="the kernel to update to (default: the same)")
    machines.add(parser)
    parser.add_argument("--seed", type=int, default=1, help="of every pattern and random choice (1)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    parser.add_argument("--json", action="store_true", help="print result.json; progress goes to stderr")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    case = _case(options)
    from harness import attempt
    from harness.report import directory

    shown = output.stderr(options) if options.json else output.stdout(options)
    with output.progress(shown) as progress:
        output.ensure_tools(options, progress)
        runs = options.runs or directory.default_root()
        verdict = attempt.make(layout=Layout.here(), store=Store.default(), runs=runs, progress=progress)(
            case
        )
    return output.conclude(options, shown, case, verdict)


def _case(options: argparse.Namespace) -> Case:
    from harness.scenarios import resolve

    kernel = kernels.chosen(options)
    return Case(
        kernel=kernel,
        next_kernel=kernels.load(options.next_kernel) if options.next_kernel else kernel,
        recipe=DEFAULT_RECIPE,
        machine=machines.chosen(options),
        scenarios=resolve(options.scenarios, Layout.here().scenarios, everything=options.all),
        seed=options.seed,
    )
