# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh list`: name kernels, scenarios and images."""

from __future__ import annotations

import argparse

from harness.commands import kernels, output
from harness.layout import Layout
from harness.options import Commands, command


def add(commands: Commands) -> None:
    output.add_color(command(commands, "list", "list kernels, scenarios and images", run))


def run(options: argparse.Namespace) -> int:
    from itertools import groupby

    from harness.image import recipe
    from harness.kernel import definition
    from harness.report.tables import show
    from harness.scenarios import catalogue

    console, layout = output.stdout(options), Layout.here()
    known = (kernels.load(name) for name in definition.known(layout.configs))
    named = [(one.name, " + ".join(series.name for series in one.series)) for one in known]
    show(console, "Kernels", [(name, f"series {series}" if series else "") for name, series in named])
    for subject, scenarios in groupby(catalogue(layout.scenarios), key=lambda one: one.subject):
        rows = [(one.function, " ".join(one.rules), one.summary) for one in scenarios]
        show(console, f"Scenarios: {subject}", rows)
    show(console, "Images", [(name,) for name in recipe.known(layout.recipes)])
    return 0
