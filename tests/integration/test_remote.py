# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on another machine: this one, through a real SSH server on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.case import Remote
from tests.integration.conftest import Ran


def words(server: Remote) -> list[str | Path]:
    assert server.identity
    return ["--host", str(server), "--identity", server.identity, "--host-key", server.host_key]


def qemus(mark: str) -> list[str]:
    """The command lines of QEMUs that have this in theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text.startswith("qemu-system") and mark in text:
            found.append(text)
    return found


def test_qemu_runs_on_another_machine(luh_run: Callable[..., Ran], server: Remote) -> None:
    ran = luh_run("test_memory_survives[vm,memory-memory,vm]", *words(server))
    assert ran.status == 0, ran.output
    (one,) = ran.scenarios.values()
    assert one["bytes_verified"] > 0
    assert len(one["live_updates"]) == 1
    console = (ran.directory / one["traces"] / "console.log").read_text()
    assert console.count("Linux version 7.3") == 2
    assert not qemus(".cache/luh/remote")
