# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU, the agent and the guest break: the right one is blamed, within the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness import command
from harness.deadline import Deadline
from tests.broken.conftest import Bed

KILL_QEMU = """
import os, signal
from harness import plugin
def test_it(host, request):
    os.kill(request.node.stash[plugin.TRIAL].machine.pid, signal.SIGKILL)
    host.memory_free()
"""
# The stand-in's guest is its agent, a process of this machine: stopped, it is a guest whose CPUs hang.
HANG = """
import os, signal
def test_it(host):
    host.time_scale = 0.1
    os.kill(host.identity.agent_pid, signal.SIGSTOP)
    host.memory_free(settle=False)
"""
KILL_AGENT = """
import os, signal
def test_it(host):
    host.time_scale = 0.1
    os.kill(host.identity.agent_pid, signal.SIGKILL)
    host.memory_free(settle=False)
"""
NEVER_BACK = """
import os, time
from harness.guest.kexec import go
def test_it(host):
    os.kill(host.identity.agent_pid, 9)
    go(host, host.deadline(0.2, "kexec"), time.monotonic(), "host.hello")
"""


@pytest.mark.parametrize(
    ("mood", "body", "outcome", "reason"),
    [
        ("kexec", KILL_QEMU, "BROKEN", "QEMU ended by itself: killed by SIGKILL"),
        ("kexec", HANG, "FAIL", "the host did not answer within the deadline"),
        # Another agent answers, from what says that it is another boot; a real init starts it in the same.
        ("kexec", KILL_AGENT, "FAIL", "the host booted again during host.memory, which nobody asked for"),
        ("", NEVER_BACK, "FAIL", "the next kernel did not reach its agent"),
    ],
    ids=["qemu-killed", "guest-hangs", "agent-killed", "kexec-never-back"],
)
def test_machine_that_breaks(
    warm: Callable[..., Bed],
    standin: Callable[..., None],
    mood: str,
    body: str,
    outcome: str,
    reason: str,
) -> None:
    standin(mood)
    made = warm(body)
    ran = made.run()
    assert (ran.result["outcome"], ran.status) == (outcome, {"FAIL": 1, "BROKEN": 3}[outcome]), ran.said
    assert reason in ran.result["reason"]
    assert ran.result["scenarios"][0]["seconds"] < 20
    made.assert_clean()


def test_guest_that_floods_its_console_is_listened_to(
    warm: Callable[..., Bed], standin: Callable[..., None]
) -> None:
    standin("kexec flood")
    made = warm()
    ran = made.run()
    assert ran.result["outcome"] == "PASS", ran.said
    log = made.runs / "latest" / ran.result["scenarios"][0]["traces"] / "console.log"
    assert log.read_text().count("| flood ") == 50_000
    assert (made.runs / "latest" / "report.html").stat().st_size < 100_000
    made.assert_clean()


# ---- clocks -----------------------------------------------------------------------------------

# Not libfaketime: it makes a time.sleep(), which waits on the monotonic clock, fail with EINVAL.
JUMPING = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static _Atomic long looks;
int clock_gettime(clockid_t id, struct timespec *now)
{
	int status = syscall(SYS_clock_gettime, id, now);
	if (!status && id == CLOCK_REALTIME)
		now->tv_sec += JUMP * ++looks;
	return status;
}
"""


@pytest.mark.long
@pytest.mark.parametrize("seconds", [86400, -86400], ids=["leaps", "backwards"])
def test_wall_clock_that_jumps_changes_nothing(warm: Callable[..., Bed], seconds: int) -> None:
    """The harness's wall clock is a day further on, or back, with each look at it."""
    made = warm()
    source, library = made.folder / "jump.c", made.folder / "jump.so"
    source.write_text(JUMPING.replace("JUMP", f"({seconds}L)"))
    argv: list[str | Path] = ["gcc", "-shared", "-fPIC", "-o", library, source]
    command.run(argv, deadline=Deadline.after(30, "gcc"))
    made.env = {"LD_PRELOAD": str(library)}
    began = time.monotonic()
    ran = made.run()
    assert ran.result["outcome"] == "PASS", ran.said
    assert abs(datetime.fromisoformat(ran.result["began"]) - datetime.now(UTC)) > timedelta(hours=12)
    assert sum(phase["seconds"] for phase in ran.result["phases"]) <= time.monotonic() - began
    made.assert_clean()


def test_deadlines_and_spans_never_look_at_the_wall_clock() -> None:
    """It names directories and stamps a log; nothing waits for it or is measured with it."""
    sources = Path(command.__file__).parent
    looks = {
        str(path.relative_to(sources))
        for path in sources.rglob("*.py")
        if any(word in path.read_text() for word in ("time.time(", "datetime.now(", "CLOCK_REALTIME"))
    }
    named = {"machine/console.py", "report/directory.py", "agent/host.py", "guest/session.py"}
    named |= {"history.py", "bisect/state.py", "kernel/patches.py"}
    assert looks <= named, "a new look at the wall clock: is it for a person only?"
