# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine elsewhere that runs QEMU: what it can do, and the files that QEMU needs there."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.case import Accelerator, AcceleratorChoice, Remote
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.exchange import encode
from harness.machine import probe
from harness.machine.arguments import PROGRAM
from harness.slots import Room, available_memory
from harness.ssh.connection import connected
from harness.ssh.depot import Depot

# What probe.Facts are about, as lines of shell that print them.
FACTS = """
command -v python3 >/dev/null || echo lacks python3
command -v {program} >/dev/null || echo lacks {program}
[ -e /dev/kvm ] && echo device
[ -r /dev/kvm ] && [ -w /dev/kvm ] && echo usable
for module in kvm_amd kvm_intel; do
    f=/sys/module/$module/parameters/nested; [ -r $f ] && echo nested $module $(cat $f)
done
grep -m1 '^flags' /proc/cpuinfo
true
"""


ROOM = "nproc; cat /proc/loadavg /proc/meminfo"


def choose(remote: Remote, requested: Accelerator, deadline: Deadline) -> AcceleratorChoice:
    """The accelerator to use there, found out as machine/probe.py does it here.

    Raises UsageError where that machine lacks QEMU or Python, or cannot do what is requested.
    """
    with connected(remote, deadline) as connection:
        lines = connection.run(FACTS.format(program=PROGRAM), deadline).splitlines()
        if lacking := [line.split()[1] for line in lines if line.startswith("lacks ")]:
            raise UsageError(f"{remote} lacks {' and '.join(lacking)}", hint="install it there")
        if requested is Accelerator.TCG:
            return AcceleratorChoice(Accelerator.TCG, "asked for")
        with tempfile.TemporaryDirectory(prefix="luh-") as folder:
            facts = _mirrored(Path(folder), lines, remote)
            try:
                choice = probe.choose(requested, deadline, facts)
            except UsageError as error:
                raise UsageError(_named(error.message, facts, remote), hint=error.hint) from error
            return replace(choice, reason=_named(choice.reason, facts, remote))


def _named(text: str, facts: probe.Facts, remote: Remote) -> str:
    """What was said of the mirror, said of the other machine."""
    return text.replace(str(facts.device), "/dev/kvm").replace("this machine", str(remote))


def room(remote: Remote, deadline: Deadline) -> Room:
    """For how many machines there is room there."""
    with connected(remote, deadline) as connection:
        cpus, load, memory = connection.run(ROOM, deadline).split("\n", 2)
    return Room(int(cpus), available_memory(memory), float(load.split()[0]))


def copy(remote: Remote, files: Sequence[Path], deadline: Deadline) -> dict[Path, str]:
    """Each file's path there, copied if no earlier run has."""
    with connected(remote, deadline) as connection:
        depot = Depot.find(connection, deadline)
        return {file: depot.put(file, deadline) for file in files}


def _mirrored(folder: Path, lines: Sequence[str], remote: Remote) -> probe.Facts:
    """The facts of the other machine, laid out here as that machine has them."""
    device, processor = folder / "kvm", folder / "cpuinfo"
    if "device" in lines:
        device.touch(0o600 if "usable" in lines else 0)
    processor.write_text("\n".join(line for line in lines if line.startswith("flags")) + "\n")
    for line in lines:
        if line.startswith("nested "):
            _, module, value = line.split()
            parameters = folder / "modules" / module / "parameters"
            parameters.mkdir(parents=True)
            (parameters / "nested").write_text(value)
    proof = (sys.executable, "-P", "-m", "harness.ssh.launcher", json.dumps(encode(remote)), "--probe-kvm")
    return probe.Facts(device=device, processor=processor, modules=folder / "modules", proof=proof)
