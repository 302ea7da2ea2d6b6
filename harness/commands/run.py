# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh run`: build the kernels, and run scenarios on them."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.case import Access, Bench, Case
from harness.commands import kernels, machines, output, remotes
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, SHELL_RECIPE, Parser, positive
from harness.store import Store


def add(parser: Parser) -> None:
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="a subject (basic), a function, FILE::FUNCTION[PARAMETER], a rule of the contract (K3), a file"
        " of your own, or all; `luh list` names them (default: basic)",
    )
    parser.add_argument("--all", action="store_true", help="also those that take long")
    kernels.add(parser)
    parser.add_argument("--next-kernel", metavar="NAME", help="the kernel to update to (default: the same)")
    machines.add(parser)
    remotes.add(parser)
    parser.add_argument(
        "--no-snapshots",
        dest="snapshots",
        action="store_false",
        help="boot every host, instead of starting it from a snapshot of one that had booted",
    )
    parser.add_argument(
        "-j",
        type=positive,
        default=0,
        dest="jobs",
        help="how many scenarios run beside each other (as many as there are processors and memory for)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of every pattern and random choice (1)")
    parser.add_argument(
        "--vmcore",
        action="store_true",
        help="keep the memory of a host that fails or dies, for crash and drgn",
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    parser.add_argument(
        "--keep", action="store_true", help="leave the machine at a failure, and give a prompt there"
    )
    parser.add_argument("--gdb", action="store_true", help="wait for gdb at the start of each machine")
    parser.add_argument("--json", action="store_true", help="print result.json; progress goes to stderr")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    case = _case(options)
    from harness import attempt
    from harness.report import directory
    from harness.shell import gdb
    from harness.shell.desk import opened

    shown = output.stderr(options) if options.json else output.stdout(options)
    with ExitStack() as stack:
        desk = stack.enter_context(opened()) if options.keep else None
        debugger = stack.enter_context(gdb.socket_path()) if options.gdb else None

        progress = stack.enter_context(output.progress(shown, live=not (options.keep or options.gdb)))
        place = remotes.chosen(options, progress)

        def equip(bench: Bench) -> Bench:
            bench = replace(bench, access=Access(terminal=options.keep, debugger=debugger))
            output.note(gdb.instructions(bench))
            return place.equip(bench)

        output.ensure_tools(options, progress, *["busybox"] * options.keep)
        runs = options.runs or directory.default_root()
        verdict = attempt.make(
            layout=Layout.here(),
            store=Store.default(),
            runs=runs,
            progress=progress,
            place=replace(place, equip=equip),
            desk=desk,
            hand=options.hand,
        )(case)
    return output.conclude(options, shown, case, verdict)


def _case(options: argparse.Namespace) -> Case:
    from harness.scenarios import resolve

    kernel = kernels.chosen(options)
    return Case(
        kernel=kernel,
        next_kernel=kernels.load(options.next_kernel) if options.next_kernel else kernel,
        recipe=SHELL_RECIPE if options.keep else DEFAULT_RECIPE,
        machine=machines.chosen(options),
        scenarios=resolve(options.scenarios, Layout.here().scenarios, everything=options.all),
        seed=options.seed,
        snapshots=options.snapshots,
        jobs=options.jobs,
        vmcore=options.vmcore,
    )
