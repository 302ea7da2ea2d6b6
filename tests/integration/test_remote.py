# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on another machine: this one, through a real SSH server on loopback. And a machine without QEMU: one
that `luh shell --ssh` boots, of which the run knows its address and keys alone."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import command
from harness.case import Remote, silent
from harness.deadline import Deadline
from harness.doctor import need
from tests.integration.conftest import ENVIRONMENT, LUH, Ran, build

NETWORK_KERNEL = "linux-7.3-network"
BOOT_SECONDS, END_SECONDS = 300.0, 60.0


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


@pytest.fixture
def box(tmp_path: Path) -> Iterator[list[str]]:
    """A machine with an SSH server and no agent; the words after `luh run` that `luh shell --ssh` prints."""
    need(("dropbear",), allowed=False, progress=silent)
    build("--kernel", NETWORK_KERNEL)
    said = tmp_path / "said"
    argv = [*LUH, "shell", "--ssh", "--accel", "tcg"]
    with (
        said.open("wb") as log,
        command.spawn(argv, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=log, stderr=log) as process,
    ):
        deadline = Deadline.after(BOOT_SECONDS, "a machine with an SSH server")
        while not (line := re.search(r"^  luh run (.*)$", said.read_text(), re.MULTILINE)):
            assert process.poll() is None, said.read_text()
            deadline.check()
            time.sleep(0.1)
        yield shlex.split(line[1])
        assert process.poll() is None  # the machine outlives the run
        assert process.stdin
        process.stdin.close()
        assert process.wait(END_SECONDS) == 0


@pytest.mark.long
def test_scenarios_run_on_a_machine_that_is_only_reached_by_ssh(
    luh_run: Callable[..., Ran], box: list[str], tmp_path: Path
) -> None:
    """They pass, fail and are skipped there, each on a kernel that has just been booted."""
    (tmp_path / "test_own.py").write_text(
        """\
import pytest

@pytest.mark.machine(numa_nodes=2)
def test_of_a_machine_that_it_is_not(host):
    pass

def test_that_fails(host):
    host.files.mkdir("/run/left")
    host = host.live_update()
    raise AssertionError(f"after kexec {host.identity.kexec_count}")

def test_that_finds_nothing_left(host):
    host.files.mkdir("/run/left")
"""
    )
    scenarios = ("test_memory_survives[vm,memory-memory,vm]", tmp_path / "test_own.py")
    ran = luh_run(*scenarios, *box)
    assert ran.status == 1, ran.output
    assert ran.result["accelerator"]["name"] == "real"
    outcomes = {name.partition("[")[0]: one["outcome"] for name, one in ran.scenarios.items()}
    assert outcomes == {
        "test_memory_survives": "PASS",
        "test_of_a_machine_that_it_is_not": "SKIP",
        "test_that_fails": "FAIL",
        "test_that_finds_nothing_left": "PASS",
    }
    assert "2 NUMA nodes" in ran.scenarios["test_of_a_machine_that_it_is_not"]["reason"]
    assert ran.scenarios["test_that_fails"]["reason"].startswith("after kexec ")
    survived = next(one for name, one in ran.scenarios.items() if name.startswith("test_memory_survives"))
    assert survived["bytes_verified"] > 0
    assert len(survived["live_updates"]) == 1
    console = (ran.directory / survived["traces"] / "console.log").read_text()
    assert console.count("Linux version 7.3") == 2
