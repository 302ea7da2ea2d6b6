# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bench`: how long things take."""

from __future__ import annotations

import argparse

from harness.case import GiB
from harness.commands import kernels, output
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, DEFAULT_RECIPE, Commands, command, positive, size
from harness.store import Store


def add(commands: Commands) -> None:
    parser = command(commands, "bench", "measure how long things take; prints medians", run)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="boot, restore, kexec, run, build (default: these five; build takes long); or preserve: what"
        " the live update of a guest_memfd costs, against a memfd with as many pages",
    )
    parser.add_argument("-n", type=positive, default=5, dest="count", help="how often (5)")
    group = parser.add_argument_group("preserve")
    group.add_argument("--kernel", metavar="NAME", default=DEFAULT_KERNEL, help="whose costs (linux-7.3)")
    group.add_argument(
        "--largest",
        metavar="SIZE",
        type=size,
        default=4 * GiB,
        help="of the files (4G, for which the machine has to have 10G free)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness import bench
    from harness.exchange import encode
    from harness.report.tables import show
    from harness.report.words import duration

    if options.names == [bench.COSTS]:
        return _costs(options)
    names = bench.chosen(tuple(options.names))
    with output.progress(output.stderr(options)) as progress:
        measured = bench.measure(names, options.count, progress)
    if options.json:
        print(json.dumps(encode(measured), indent=2))
        return 0
    rows = [
        (
            one.title,
            *(duration(value) for value in (one.median, one.least, one.most)),
            f"n={len(one.seconds)}",
        )
        for one in measured.figures
    ]
    heads = ("", "median", "least", "most")
    show(output.stdout(options), measured.machine, [(*heads, ""), *rows])
    return 0


def _costs(options: argparse.Namespace) -> int:
    import json

    from harness import attempt, costs
    from harness.exchange import encode
    from harness.report import costs as report
    from harness.report import directory

    with output.progress(output.stderr(options)) as progress:
        attempted = attempt.make(
            layout=Layout.here(), store=Store.default(), runs=directory.default_root(), progress=progress
        )
        kernel = kernels.load(options.kernel)
        measured = costs.measure(attempted, kernel, DEFAULT_RECIPE, options.largest, options.count)
    if options.json:
        print(json.dumps(encode(measured), indent=2))
    else:
        report.show(output.stdout(options), measured)
    return 0
