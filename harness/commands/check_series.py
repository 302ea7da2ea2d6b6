# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh check-series`: what each patch of a series does."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from harness.case import Case
from harness.commands import kernels, machines, output
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, Parser, positive
from harness.store import Store


def add(parser: Parser) -> None:
    parser.description = (
        "Apply a series patch by patch, and say of each whether it applies, builds, warns (W=1), satisfies"
        " checkpatch, boots, and passes scenarios; which patch first breaks what, and whether a later one"
        " mends it. What was found out once is kept: call it again to go on after an interruption."
    )
    parser.add_argument(
        "series",
        nargs="?",
        metavar="SERIES",
        help=f"{kernels.FORMS} (the kernel's); commits are checked on the commit that they start from, unless"
        " --kernel names another tree",
    )
    kernels.add_tree(parser)
    parser.add_argument(
        "--scenarios",
        nargs="+",
        default=["basic"],
        metavar="SCENARIO",
        help="as of luh run; what a patch does not have yet is skipped (basic)",
    )
    parser.add_argument(
        "--from", type=positive, default=1, metavar="N", dest="first", help="begin at patch N"
    )
    parser.add_argument("--no-boot", action="store_false", dest="boot", help="build only")
    machines.add(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness import check_series
    from harness.exchange import encode
    from harness.report import directory
    from harness.report import series as report
    from harness.workshop import Workshop

    case = _case(options)
    with output.progress(output.stderr(options)) as progress:
        output.ensure_tools(options, progress)
        workshop = Workshop(Layout.here(), Store.default(), options.runs or directory.default_root())
        found = check_series.check(case, workshop, progress, first=options.first, boots=options.boot)
    if options.json:
        rows = tuple(replace(row, warnings=None) for row in found.rows)
        print(json.dumps({"outcome": found.outcome, "report": encode(replace(found, rows=rows))}, indent=2))
    else:
        report.show(output.stdout(options), found)
    return output.STATUS[found.outcome]


def _case(options: argparse.Namespace) -> Case:
    from harness.scenarios import resolve

    kernel = kernels.to_check(options)
    return Case(
        kernel=kernel,
        next_kernel=kernel,
        recipe=DEFAULT_RECIPE,
        machine=machines.chosen(options),
        scenarios=resolve(options.scenarios, Layout.here().scenarios),
    )
