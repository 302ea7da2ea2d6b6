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


def test_lost_connection_is_broken_and_leaves_no_qemu(
    luh_run: Callable[..., Ran], server: Remote, tmp_path: Path
) -> None:
    body = """
import os, re, signal
from pathlib import Path
def test_it(host, request):
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = entry.read_bytes().split(b"\\0")
        if any(word.endswith(b"/supervisor.py") for word in words) and words[0] == b"python3":
            os.kill(int(entry.parent.name), signal.SIGKILL)
    host.memory_free()
"""
    (tmp_path / "test_own.py").write_text(body)
    ran = luh_run(tmp_path / "test_own.py", *words(server))
    assert ran.status == 3
    assert ran.result["outcome"] == "BROKEN"
    assert not qemus(".cache/luh/remote")
