# SPDX-License-Identifier: GPL-2.0-or-later
"""Other agents of a host: real processes, with the same API, that can die and take over files."""

from __future__ import annotations

import signal

import pytest

from harness.errors import UsageError
from harness.guest.errors import ProcessEnded
from harness.guest.session import Session

PAGE = 4096


def test_a_child_is_a_session_with_handles_of_its_own(host: Session) -> None:
    child = host.spawn()
    assert child.identity.agent_pid != host.identity.agent_pid
    memory = child.files.memfd(4 * PAGE)
    memory.fill(seed=3)
    memory.verify(seed=3)
    with pytest.raises(UsageError, match="another session"):
        host.call("files.close", file=memory)


def test_a_file_can_be_taken_over_either_way(host: Session) -> None:
    child = host.spawn()
    memory = host.files.memfd(4 * PAGE)
    taken = child.take(memory)
    taken.fill(seed=3)
    memory.verify(seed=3)
    memory.close()
    taken.verify(seed=3)


def test_a_child_inherits_nothing(host: Session) -> None:
    kept = host.files.pipe()
    child = host.spawn()
    links = child.call("files.text", path=f"/proc/{child.identity.agent_pid}/maps")
    assert "memfd" not in links
    descriptors = child.call("files.number", file=child.files.memfd(PAGE))
    assert descriptors < 8
    kept[0].close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_child_can_be_killed(host: Session, number: signal.Signals) -> None:
    child = host.spawn()
    child.kill(number)
    with pytest.raises(ProcessEnded, match=f"killed by {number.name}"):
        child.files.memfd(PAGE)
    host.files.memfd(PAGE).fill(seed=1)


def test_a_child_that_dies_by_itself_says_how(host: Session) -> None:
    child = host.spawn()
    memory = child.files.memfd(2 * PAGE)
    memory.touch(0)
    memory.touch(PAGE)
    memory.truncate(PAGE)
    with pytest.raises(ProcessEnded, match="killed by SIGBUS"):
        child.call("race.poke", memory=memory, offset=PAGE, data=b"x")


def test_a_child_works_while_the_parent_does_something_else(host: Session) -> None:
    child = host.spawn()
    memory = host.files.memfd(64 * PAGE)
    taken = child.take(memory)
    pending = child.begin("race.march", memory=taken, first=1, count=63, counter=0, seed=5)
    assert memory.size == 64 * PAGE
    assert pending.result() == 63
    assert memory.words(0, 1) == [63]
    memory.verify(seed=5, offset=PAGE)
    counts = child.begin("race.churn", file=taken, offset=0, length=PAGE, seconds=0.05).result()
    assert counts["done"] > 0
    assert counts["refused"] == 0
