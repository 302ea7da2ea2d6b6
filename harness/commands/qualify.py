# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh qualify FROM TO`: may a fleet be live-updated from one kernel to another?"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import kernels, machines, matrix, output
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, Parser, positive

WORDS = ("basic", "kexec", "retrieve")


def add(parser: Parser) -> None:
    parser.add_argument("going", metavar="FROM", help="the kernel that the hosts run: a name or a YAML file")
    parser.add_argument("coming", metavar="TO", help="the kernel that they are to run")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"({' '.join(WORDS)})")
    parser.add_argument("--jobs", type=positive, help="scenarios at once (what fits)")
    parser.add_argument("--fresh", action="store_true", help="do not go on with one that was interrupted")
    matrix.add_dry_run(parser)
    matrix.add_results(parser)
    machines.add(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from rich.text import Text

    from harness.case import Outcome
    from harness.matrix import plan, results
    from harness.scenarios import resolve

    going, coming = kernels.load(options.going), kernels.load(options.coming)
    scenarios = {
        word: resolve([word], Layout.here().scenarios, everything=False)
        for word in options.scenarios or WORDS
    }
    specs = {plan.DEFAULT: machines.chosen(options)}
    cells = plan.cells([going], [coming], {plan.DEFAULT: ()}, specs, scenarios, DEFAULT_RECIPE)
    name = f"{going.name} to {coming.name}"
    pair = plan.Plan(name.replace(" ", "-"), cells)
    if options.dry_run:
        return matrix.foretell(options, pair)
    status, found = matrix.carry_out(options, pair, name)
    verdict = results.qualify(found)
    console = output.stdout(options)
    console.print()
    style = "green" if verdict.safe else "red"
    console.print(Text(f" {name}: ", "bold") + Text(verdict.headline, f"bold {style}"))
    for reason in verdict.reasons:
        console.print(Text(f"   {reason}", "dim"))
    if verdict.safe or status == output.STATUS[Outcome.BROKEN]:
        return status
    return output.STATUS[Outcome.FAIL]
