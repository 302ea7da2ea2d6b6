# SPDX-License-Identifier: GPL-2.0-or-later
"""The words for gdb: how to reach the machine, and whose symbols hold when."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.case import Accelerator, Bench

SOCKET = "gdb"


@contextmanager
def socket_path() -> Iterator[Path]:
    """A path for the socket that QEMU waits on, below the system's limit of 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="luh-") as folder:
        yield Path(folder) / SOCKET


def instructions(bench: Bench) -> str:
    """What to type, for both kernels."""
    path = bench.access.debugger
    if path is None:
        return ""
    connect = f"gdb -q -ex 'target remote {path}' {shlex.quote(str(bench.kernel.vmlinux))}"
    lines = ["The machine waits for gdb before its first instruction. In another terminal:", f"  {connect}"]
    lines.append("Set breakpoints there (hbreak start_kernel), then: continue")
    if bench.next_kernel.digest == bench.kernel.digest:
        lines.append("After the live update the same symbols and breakpoints hold.")
    else:
        lines.append("After the live update the kernel is another one. In gdb:")
        lines.append(f"  symbol-file {bench.next_kernel.vmlinux}")
    if bench.choice.accelerator is Accelerator.KVM:
        lines.append("With KVM use hbreak: break writes into memory that the next kernel is loaded over.")
    if "CONFIG_DEBUG_INFO=y" not in bench.kernel.config.read_text(encoding="utf-8"):
        lines.append("This kernel has symbols, but no lines of source: see the fragment debug-info.")
    return "\n".join(lines)
