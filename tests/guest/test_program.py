# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the host: real ones, started by a real agent."""

from __future__ import annotations

import signal
import time

from harness.guest import program
from harness.guest.program import Ended
from harness.guest.session import Session

LIMIT = 20.0


def sh(host: Session, script: str, seconds: float = LIMIT, may_hold: str = "") -> Ended:
    return program.run(host, ("/bin/sh", "-c", script), seconds, may_hold=may_hold)


def test_a_program_has_a_status_and_both_of_its_outputs(host: Session) -> None:
    ended = sh(host, "echo one; echo two >&2; exit 4")
    assert (ended.code, ended.output) == (4, "one\ntwo\n")
    assert ended.text == "status 4"
    assert not ended.stays


def test_a_large_output_comes_whole(host: Session) -> None:
    ended = sh(host, "seq 1 40000")
    assert ended.code == 0
    assert ended.output.split() == [str(number) for number in range(1, 40001)]


def test_a_program_that_is_killed_says_by_what(host: Session) -> None:
    ended = sh(host, "kill -SEGV $$")
    assert ended.code is None
    assert ended.text == f"killed by {signal.SIGSEGV.name}"


def test_a_program_without_an_end_is_ended_with_its_children(host: Session) -> None:
    began = time.monotonic()
    ended = sh(host, "echo begun; sleep 600 & sleep 600", seconds=1.0)
    assert ended.status is None
    assert ended.output == "begun\n"
    assert time.monotonic() - began < LIMIT


def test_one_that_leaves_a_process_behind_has_ended(host: Session) -> None:
    """As daemonize_and_wait() of the kernel's liveupdate tests does, and one that keeps its output open."""
    for redirected in (">/dev/null 2>&1", ""):
        began = time.monotonic()
        ended = sh(host, f"echo ready; setsid sleep 30 {redirected} & exit 0")
        assert (ended.code, ended.output) == (0, "ready\n")
        assert time.monotonic() - began < LIMIT


def test_one_that_falls_silent_with_the_right_file_may_stay(host: Session) -> None:
    script = "exec 3</dev/zero; echo ready; sleep 30 & wait"
    ended = sh(host, script, may_hold="/dev/zero")
    assert ended.stays
    assert ended.output == "ready\n"
    assert not sh(host, script, seconds=5.0, may_hold="/dev/full").stays


def test_lines_are_shown_while_they_come(host: Session) -> None:
    lines: list[str] = []
    program.run(host, ("/bin/sh", "-c", "echo one; sleep 1; echo two"), LIMIT, lines.append)
    assert lines == ["one", "two"]
