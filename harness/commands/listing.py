# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh list`: name kernels, scenarios and images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.commands import kernels, output
from harness.layout import Layout
from harness.options import Parser

if TYPE_CHECKING:
    from rich.console import Console


def add(parser: Parser) -> None:
    parser.add_argument(
        "subject",
        nargs="?",
        choices=SUBJECTS,
        metavar="SUBJECT",
        help="kernels, scenarios or images (default: all of them)",
    )
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    console, layout = output.stdout(options), Layout.here()
    for subject in (options.subject,) if options.subject else SUBJECTS:
        SUBJECTS[subject](console, layout)
    return 0


def _kernels(console: Console, layout: Layout) -> None:
    from harness.kernel import definition
    from harness.report.tables import show

    known = (kernels.load(name) for name in definition.known(layout.configs))
    named = [(one.name, " + ".join(series.name for series in one.series)) for one in known]
    show(console, "Kernels", [(name, f"series {series}" if series else "") for name, series in named])


def _scenarios(console: Console, layout: Layout) -> None:
    from itertools import groupby

    from harness.report.tables import show
    from harness.scenarios import catalogue

    for subject, scenarios in groupby(catalogue(layout.scenarios), key=lambda one: one.subject):
        rows = [(one.function, " ".join(one.rules), one.summary) for one in scenarios]
        show(console, f"Scenarios: {subject}", rows)


def _images(console: Console, layout: Layout) -> None:
    from harness.image import recipe
    from harness.report.tables import show

    show(console, "Images", [(name,) for name in recipe.known(layout.recipes)])


SUBJECTS = {"kernels": _kernels, "scenarios": _scenarios, "images": _images}
