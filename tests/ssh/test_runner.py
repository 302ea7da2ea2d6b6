# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine elsewhere has for us: here the one that the test runs on, through a real server."""

from __future__ import annotations

from harness import remote, slots
from harness.case import Remote
from harness.deadline import Deadline
from harness.layout import Layout
from harness.ssh import runner
from harness.store import Store


def test_room_is_that_of_the_other_machine(server: Remote) -> None:
    there = runner.room(server, Deadline.after(60, "a test"))
    here = slots.here()
    assert there.cpus == here.cpus
    assert abs(there.available - here.available) < here.available / 2
    assert there.load >= 0


def test_a_real_machine_has_room_for_one_scenario(server: Remote, small_store: Store) -> None:
    place = remote.target(server, "minimal", Layout.here(), small_store)
    assert place.room().fitting(memory=1) == 1
