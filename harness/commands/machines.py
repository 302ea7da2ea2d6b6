# SPDX-License-Identifier: GPL-2.0-or-later
"""Which machine is meant: the words for it, and what they come to."""

from __future__ import annotations

import argparse

from harness.case import WANTED_ACCELERATORS, Accelerator, MachineSpec
from harness.options import memory, positive


def add(parser: argparse.ArgumentParser) -> None:
    """--accel, --memory and --cpus."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("--accel", default="auto", choices=[*map(str, WANTED_ACCELERATORS)], help="(auto)")
    machine.add_argument("--memory", type=memory, default=MachineSpec().memory, help="of the host (1G)")
    machine.add_argument("--cpus", type=positive, default=MachineSpec().cpus, help="of the host (2)")


def chosen(options: argparse.Namespace) -> MachineSpec:
    """The machine that the options describe."""
    return MachineSpec(memory=options.memory, cpus=options.cpus, accelerator=Accelerator(options.accel))
