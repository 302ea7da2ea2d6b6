# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh build`: build a kernel, and say where it is."""

from __future__ import annotations

import argparse

from harness.commands import kernels, output
from harness.options import Parser
from harness.store import Store


def add(parser: Parser) -> None:
    kernels.add(parser)
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    definition = kernels.chosen(options)
    from harness import attempt

    with output.progress(output.stderr(options)) as progress:
        output.ensure_tools(options, progress)
        kernel = attempt.build_kernels((definition,), Store.default(), attempt.Timeline(progress))[definition]
    for name, path in (("vmlinux", kernel.vmlinux), ("bzImage", kernel.bzimage), ("config", kernel.config)):
        print(f"{name:8} {path}")
    return 0
