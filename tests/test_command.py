# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands: their output comes as it is written, and nothing of them outlives its block."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness import command
from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError


def soon(seconds: float = 20) -> Deadline:
    return Deadline.after(seconds, "a test")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 5
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def test_output_comes_line_by_line_and_is_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    script = "echo one; echo two >&2; printf three"
    done = command.run(["sh", "-c", script], deadline=soon(), log=log, on_line=lines.append)
    assert lines == ["one", "two", "three"]
    assert (done.status, done.output) == (0, "one\ntwo\nthree")
    assert log.read_text() == "one\ntwo\nthree\n"


def test_input_and_environment_reach_the_command() -> None:
    done = command.run(
        ["sh", "-c", "cat; echo $COLOUR"], deadline=soon(), stdin="in\n", env={"COLOUR": "red"}
    )
    assert done.output == "in\nred"


def test_a_failure_says_what_failed_and_its_last_words() -> None:
    with pytest.raises(InfraError, match="sh failed with status 3") as caught:
        command.run(["sh", "-c", "echo why; exit 3"], deadline=soon())
    assert caught.value.detail == "why"
    assert command.run(["sh", "-c", "exit 3"], deadline=soon(), check=False).status == 3


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(InfraError, match="luh-no-such-program"):
        command.run(["luh-no-such-program"], deadline=soon())


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 & exec >/dev/null 2>&1; sleep 60"])
def test_the_deadline_ends_the_command(script: str) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="a test"):
        command.run(["sh", "-c", script], deadline=soon(0.3))
    assert time.monotonic() - began < 10


def test_what_the_command_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with command.spawn(["sh", "-c", f"sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"]):
        while not pid.exists():
            time.sleep(0.01)
        grandchild = int(pid.read_text())
        assert is_alive(grandchild)
    wait_until_gone(grandchild)


def test_a_command_that_ignores_sigterm_is_killed() -> None:
    with command.spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]) as child:
        time.sleep(0.2)
    assert child.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def test_the_command_dies_with_a_parent_that_could_not_clean_up(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from harness import command\n"
        "with command.spawn(['sleep', '60']) as child:\n"
        "    time.sleep(0.3)\n"
        f"    Path({str(pid)!r}).write_text(str(child.pid))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parent.parent
    command.run([sys.executable, "-c", code], cwd=root, deadline=soon(), check=False, env=dict(os.environ))
    wait_until_gone(int(pid.read_text()))
