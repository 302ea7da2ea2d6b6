# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on another machine: this one, through a real SSH server on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.case import Remote
from harness.deadline import Deadline
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
        if "qemu-system" in text.split(" ")[0] and mark in text:
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
    """The server's process for the connection dies, which QEMU's parent there leads to."""
    body = """
import os, signal
from pathlib import Path
def words(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")
def test_it(host, request):
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    (there,) = [pid for pid in pids if any(word.endswith(b"/supervisor.py") for word in words(pid)[:3])]
    status = Path(f"/proc/{there}/status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
    host.memory_free()
"""
    (tmp_path / "test_own.py").write_text(body)
    ran = luh_run(tmp_path / "test_own.py", *words(server))
    assert ran.status == 3, ran.output
    assert ran.result["outcome"] == "BROKEN"
    deadline = Deadline.after(10, "the end of QEMU there")
    while qemus(".cache/luh/remote"):
        deadline.check()
        time.sleep(0.1)
