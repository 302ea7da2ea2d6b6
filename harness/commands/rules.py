# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh rules`: the contract's rules, who checks them, and what came of it last."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.case import Outcome
from harness.commands import output
from harness.layout import Layout
from harness.options import Parser


def add(parser: Parser) -> None:
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness import rules
    from harness.report import directory
    from harness.report.tables import show
    from harness.scenarios import catalogue
    from harness.scenarios import rules as contract

    layout = Layout.here()
    covered = rules.coverage(
        contract(layout.contract),
        catalogue(layout.scenarios),
        rules.last_outcomes(options.runs or directory.default_root()),
    )
    if options.json:
        print(rules.to_json(covered))
    else:
        console = output.stdout(options)
        show(console, "Rules of the contract", rules.rows(covered))
        show(console, "Skipped when they were run last", rules.skips(covered))
    return 0 if all(rule.scenarios for rule in covered) else output.STATUS[Outcome.FAIL]
