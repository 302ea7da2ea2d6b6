# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh shell` as a script, its root shell, and gdb in both kernels."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from harness import command
from harness.case import silent
from harness.deadline import Deadline
from harness.doctor import need
from tests.integration.conftest import ENVIRONMENT, LUH

SHELL = [*LUH, "shell", "--accel", "tcg"]
SECONDS = 300.0


def shell(script: str) -> command.Completed:
    deadline = Deadline.after(SECONDS, "luh shell")
    return command.run(SHELL, env=ENVIRONMENT, deadline=deadline, stdin=script, check=False)


def test_shell_is_a_script_through_a_pipe(kernel: None) -> None:
    done = shell(
        """\
guest = make_guest(host)
guest.memory.fill(seed=seed)
session = preserve(host, guest)
sh("echo $((6 * 7)) > /run/answer; cat /run/answer")
before = host
host.live_update()
sh("cat /run/answer; uname -r")
session, guest = retrieve(host)
guest.memory.verify(seed=seed)
print("another", host is not before, host.identity.kexec_count)
session.preserve(guest.vm, token=9)
print("never reached")
"""
    )
    lines = done.output.splitlines()
    assert "42" in lines
    assert "another True 1" in lines
    assert "(host is the session of this kernel now)" in lines
    assert any("No such file" in line for line in lines)  # the next kernel's file system is its own
    # Preserving into an incoming session is refused, and that ends the script.
    assert any(line.startswith("RemoteError: liveupdate.preserve: ") for line in lines)
    assert "never reached" not in lines
    assert "Traceback" not in done.output
    assert done.status == 1


@pytest.mark.long
def test_gdb_stops_in_both_kernels(kernel: None, tmp_path: Path) -> None:
    need(("gdb",), allowed=False, progress=silent)
    said = tmp_path / "said"
    with (
        said.open("wb") as log,
        command.spawn(
            [*SHELL, "--gdb"], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=log, stderr=log
        ) as process,
    ):
        assert process.stdin
        process.stdin.write(b"host.live_update()\n")
        process.stdin.close()
        deadline = Deadline.after(SECONDS, "the line for gdb")
        while not (line := re.search(r"^  (gdb .*)$", said.read_text(), re.MULTILINE)):
            deadline.check()
            time.sleep(0.1)
        steps = ("break start_kernel", "continue", "continue", "delete", "detach")
        words = [*shlex.split(line[1]), "-batch", *(word for step in steps for word in ("-ex", step))]
        gdb = command.run(words, deadline=deadline)
        assert gdb.output.count("hit Breakpoint 1, ") == 2
        assert process.wait(deadline.remaining) == 0
    assert "kexec 1" in said.read_text()
