# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bench`: how long things take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from harness.case import Case, GiB, MachineSpec
from harness.commands import kernels, output
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, DEFAULT_RECIPE, Parser, positive, size
from harness.store import Store

if TYPE_CHECKING:
    from rich.console import Console

    from harness.bench import Measured

T = TypeVar("T")
MAINLINE_KERNEL = "linux-7.3-mainline"
EPILOG = """\
Together, as often as -n says:
  boot       power-on to agent
  restore    snapshot to agent
  kexec      kexec to agent
  run        a basic run, the whole command
  build      patches, configuration and make, without ccache: takes long

Each by itself:
  breakdown  the steps of a power-on and of a live update, on one clock
  edit       from the edit of one .c file in a tree like a user's to a verdict
  vmtest     whole commands, in turn with those of the kernel's own vmtest.sh
  preserve   what the live update of a guest_memfd costs, against a memfd
"""


def add(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="what is measured; default: boot restore kexec run build"
    )
    parser.add_argument("-n", type=positive, default=5, dest="count", help="how often (5)")
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        help=f"of what is measured by itself ({DEFAULT_KERNEL}; edit, vmtest: {MAINLINE_KERNEL})",
    )
    group = parser.add_argument_group("breakdown")
    group.add_argument(
        "--slowest", type=positive, default=10, metavar="N", help="how many initcalls are named (10)"
    )
    group = parser.add_argument_group("vmtest")
    group.add_argument(
        "--cold", action="store_true", help="each with a kernel that it builds anew, without ccache: slow"
    )
    group = parser.add_argument_group("preserve")
    group.add_argument(
        "--largest",
        metavar="SIZE",
        type=size,
        default=4 * GiB,
        help="of the files (4G, for which the machine has to have 10G free)",
    )
    output.add_install(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness import bench

    if len(options.names) == 1 and options.names[0] in ALONE:
        return ALONE[options.names[0]](options)
    names = bench.chosen(tuple(options.names), tuple(ALONE))
    with output.progress(output.stderr(options)) as progress:
        measured = bench.measure(names, options.count, progress)
    return _print(options, measured, _figures)


def _print(options: argparse.Namespace, measured: T, show: Callable[[Console, T], None]) -> int:
    """As JSON, or as it is shown to a person."""
    import json

    from harness.exchange import encode

    if options.json:
        print(json.dumps(encode(measured), indent=2))
    else:
        show(output.stdout(options), measured)
    return 0


def _figures(console: Console, measured: Measured) -> None:
    from harness.report.tables import show
    from harness.report.words import duration

    rows = [
        (
            one.title,
            *(duration(value) for value in (one.median, one.least, one.most)),
            f"n={len(one.seconds)}",
        )
        for one in measured.figures
    ]
    heads = ("", "median", "least", "most")
    show(console, measured.machine, [(*heads, ""), *rows])


def _breakdown(options: argparse.Namespace) -> int:
    from harness import attempt, breakdown
    from harness.report import breakdown as report
    from harness.report import directory

    kernel = kernels.load(options.kernel or DEFAULT_KERNEL)
    case = Case(kernel, kernel, DEFAULT_RECIPE, MachineSpec(), ())
    place = directory.create(directory.default_root().parent / "breakdowns")
    with output.progress(output.stderr(options)) as progress:
        bench = attempt.prepare(
            case, layout=Layout.here(), store=Store.default(), directory=place, progress=progress
        )
        measured = breakdown.measure(bench, options.count, options.slowest, progress)
    return _print(options, measured, report.show)


def _costs(options: argparse.Namespace) -> int:
    from harness import attempt, costs
    from harness.report import costs as report
    from harness.report import directory

    with output.progress(output.stderr(options)) as progress:
        attempted = attempt.make(
            layout=Layout.here(), store=Store.default(), runs=directory.default_root(), progress=progress
        )
        kernel = kernels.load(options.kernel or DEFAULT_KERNEL)
        measured = costs.measure(attempted, kernel, DEFAULT_RECIPE, options.largest, options.count)
    return _print(options, measured, report.show)


def _edit(options: argparse.Namespace) -> int:
    from harness import attempt, edit

    kernel = kernels.load(options.kernel or MAINLINE_KERNEL)
    store = Store.default()
    with output.progress(output.stderr(options)) as progress:
        (tree,) = attempt.patch_trees((kernel,), store, attempt.Timeline(progress)).values()
        measured = edit.measure(tree, store, options.count, progress)
    return _print(options, measured, _figures)


def _vmtest(options: argparse.Namespace) -> int:
    from harness import attempt, vmtest
    from harness.report import contests as report

    kernel = kernels.load(options.kernel or MAINLINE_KERNEL)
    store = Store.default()
    with output.progress(output.stderr(options)) as progress:
        output.ensure_tools(options, progress, "rsync")
        (tree,) = attempt.patch_trees((kernel,), store, attempt.Timeline(progress)).values()
        measure = vmtest.measure_cold if options.cold else vmtest.measure
        measured = measure(tree, store, options.count, progress)
    return _print(options, measured, report.show)


# Measured by themselves, and otherwise than in bench.py.
ALONE = {"breakdown": _breakdown, "edit": _edit, "vmtest": _vmtest, "preserve": _costs}
