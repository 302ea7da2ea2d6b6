# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh test`: the project's own tests."""

from __future__ import annotations

import argparse

from harness.case import Update
from harness.commands import output
from harness.layout import Layout
from harness.options import Parser, say


def add(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="also those that take long")
    parser.epilog = "Everything else is passed on to pytest."
    parser.set_defaults(passes_on=True)
    output.add_install(parser)


def run(options: argparse.Namespace) -> int:
    from harness import gate

    def plain(update: Update) -> None:
        print(f"luh: {update.text}", flush=True)

    output.ensure_tools(options, plain)
    return gate.test(Layout.here(), tuple(options.rest), everything=options.all, say=say)
