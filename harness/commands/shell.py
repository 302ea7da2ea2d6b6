# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh shell`: a prompt in a booted host."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace

from harness.case import Access, Case, Update
from harness.commands import kernels, machines, output
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, SHELL_RECIPE, Parser
from harness.store import Store

NETWORK_KERNEL = "linux-7.3-network"


def add(parser: Parser) -> None:
    kernels.add(parser)
    parser.add_argument("--next-kernel", metavar="NAME", help="the kernel to update to (default: the same)")
    machines.add(parser)
    parser.add_argument("--gdb", action="store_true", help="wait for gdb before the first instruction")
    parser.add_argument(
        "--ssh",
        action="store_true",
        help=f"reach it by SSH, with keys made for it (kernel: {NETWORK_KERNEL}, if no other is named)",
    )
    parser.add_argument("--console", action="store_true", help="show the serial console's lines as they come")
    parser.add_argument("--seed", type=int, default=1, help="what the prompt has as `seed` (1)")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness import attempt
    from harness.report import directory
    from harness.shell import gdb, keys, prompt, start

    if options.ssh and options.kernel == DEFAULT_KERNEL and options.tree is None:
        options.kernel = NETWORK_KERNEL
    case = _case(options)
    place = directory.create(directory.default_root().parent / "shells")
    with ExitStack() as stack:
        with output.progress(output.stderr(options)) as progress:
            output.ensure_tools(options, progress, "busybox", *["dropbear"] * options.ssh)
            bench = attempt.prepare(
                case, layout=Layout.here(), store=Store.default(), directory=place, progress=progress
            )
        made = keys.make(place / "keys") if options.ssh else None
        access = Access(
            terminal=True,
            debugger=stack.enter_context(gdb.socket_path()) if options.gdb else None,
            keys=made.disk if made else None,
        )
        bench = replace(bench, access=access)
        output.note(gdb.instructions(bench))
        with output.progress(output.stderr(options), live=not options.console) as progress:
            progress(Update("boot", "waiting for gdb" if options.gdb else ""))
            machine, host = stack.enter_context(start.booted(bench, follow=options.console))
            progress(Update("boot", f"Linux {host.identity.release}", finished=True))
        output.note(keys.reached(made, machine.forwarded_port(), options.kernel) if made else "")
        _greet(host)
        return prompt.Prompt(machine, host, bench.seed).converse()


def _case(options: argparse.Namespace) -> Case:
    kernel = kernels.chosen(options)
    return Case(
        kernel=kernel,
        next_kernel=kernels.load(options.next_kernel) if options.next_kernel else kernel,
        recipe="ssh" if options.ssh else SHELL_RECIPE,
        machine=machines.chosen(options),
        scenarios=(),
        seed=options.seed,
    )


def _greet(host: object) -> None:
    if sys.stdin.isatty():
        output.note(f"{host!r}\nhelp says what there is; sh is a root shell; exit powers the machine off.")
