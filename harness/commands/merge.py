# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh merge`: join the results that several machines found of one matrix."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import matrix, output
from harness.errors import UsageError
from harness.options import Parser


def add(parser: Parser) -> None:
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help="what `luh matrix --output` left")
    parser.add_argument("--name", default="nightly", help="of the matrix, for the history (nightly)")
    parser.add_argument(
        "--plan", type=Path, metavar="PLAN.yaml", help="cells of it that are missing are BROKEN"
    )
    matrix.add_results(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness.case import Outcome, Verdict
    from harness.matrix import results

    found = results.load(options.places)
    if options.plan:
        known = {one.name for one in found}
        for cell in matrix.load(options.plan).cells:
            if cell.name not in known:
                lost = Verdict(Outcome.BROKEN, "no machine gave a result of it", options.places[0])
                found.append(results.judged(cell, lost, None))
    if not found:
        raise UsageError("there is no result in " + ", ".join(map(str, options.places)))
    return matrix.conclude(options, options.name, found)
