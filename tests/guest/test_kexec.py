# SPDX-License-Identifier: GPL-2.0-or-later
"""A live update uses its session up and gives the next one, or says why there is none."""

from __future__ import annotations

import errno

import pytest

from harness.deadline import Deadline
from harness.errors import CrashError, UsageError
from harness.guest.errors import RemoteError, SessionUsedUp, raises_errno
from harness.guest.session import Session
from tests.guest.conftest import StagedHost


def test_it_gives_the_session_of_the_next_boot(machine: StagedHost, host: Session) -> None:
    following = host.live_update()
    assert machine.operations == ["kexec.load", "kexec.reboot"]
    assert following.identity.boot_id == "boot-2"
    assert following.updated
    assert following.memory_free(settle=False) > 0
    third = following.live_update()
    assert [(update.from_boot_id, update.to_boot_id) for update in third.journal.updates] == [
        ("boot-1", "boot-2"),
        ("boot-2", "boot-3"),
    ]
    assert [phase.name for phase in third.journal.phases] == ["kexec load", "kexec to agent"] * 2


def test_the_old_session_and_its_objects_are_used_up(host: Session) -> None:
    old = host.files.memfd(4096)
    following = host.live_update()
    with pytest.raises(SessionUsedUp, match="boot-1"):
        host.memory_free()
    with pytest.raises(SessionUsedUp, match="boot-1"):
        old.fill(seed=1)
    with pytest.raises(UsageError, match="belongs to another session"):
        following.call("files.size", file=old)


def test_a_refused_reboot_leaves_everything_usable(machine: StagedHost, host: Session) -> None:
    memory = host.files.memfd(4096)
    machine.refuses = errno.ENOENT
    with pytest.raises(RemoteError) as caught:
        host.live_update()
    assert caught.value.errno == errno.ENOENT
    memory.fill(seed=1)
    machine.refuses = 0
    assert host.kexec.reboot().identity.boot_id == "boot-2"


def test_the_steps_can_be_done_one_by_one(machine: StagedHost, host: Session) -> None:
    machine.refuses = errno.EBUSY
    host.kexec.load(command_line="other")
    with raises_errno(errno.EBUSY):
        host.kexec.reboot()
    host.kexec.unload()
    assert machine.operations == ["kexec.load", "kexec.reboot", "kexec.unload"]


def test_a_kernel_that_never_comes_back_is_a_crash(machine: StagedHost, host: Session) -> None:
    machine.boot_ids.clear()
    with pytest.raises(CrashError, match="the next kernel did not reach its agent"):
        host.live_update(deadline=Deadline.after(0.3, "live update"))
    with pytest.raises(CrashError, match="the next kernel did not reach its agent"):
        host.memory_free()


def test_an_agent_that_only_restarted_proves_no_kexec(machine: StagedHost, host: Session) -> None:
    machine.boot_ids.appendleft("boot-1")
    with pytest.raises(CrashError, match="in the same boot"):
        host.live_update()
