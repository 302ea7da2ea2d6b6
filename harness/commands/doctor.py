# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh doctor`: what this machine has and lacks."""

from __future__ import annotations

import argparse

from harness.commands import output
from harness.options import BROKEN, Parser
from harness.store import Store


def add(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness import doctor
    from harness.exchange import encode
    from harness.report.tables import show

    report = doctor.check(Store.default().root)
    install = doctor.install_command(report.missing) if report.missing else ""
    if options.json:
        rows = [encode(row) for row in report.rows]
        print(json.dumps({"ok": report.ok, "rows": rows, "install": install}, indent=2))
        return 0 if report.ok else BROKEN
    cells = [(row.name, row.state, row.found, row.purpose) for row in report.rows]
    show(output.stdout(options), "This machine", cells)
    if install:
        print(f"Install what is missing with\n\n  {install}\n")
    return 0 if report.ok else BROKEN
