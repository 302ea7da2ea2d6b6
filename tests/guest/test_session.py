# SPDX-License-Identifier: GPL-2.0-or-later
"""A session's errors: the kernel's are told apart from the agent's, and a dead host stays dead."""

from __future__ import annotations

import errno
import os

import pytest

from harness.agent import wire
from harness.deadline import Deadline
from harness.errors import BootError, CrashError, DeadlineError, InfraError
from harness.guest.errors import AgentError, RemoteError, UnexpectedResult, raises_errno
from harness.guest.session import Session
from tests.guest.conftest import StagedHost


def test_it_knows_whom_it_speaks_to(host: Session) -> None:
    assert host.identity.boot_id == "boot-1"
    assert host.identity.release == os.uname().release
    assert not host.updated


def test_a_refusal_of_the_kernel_has_its_errno_and_the_session_goes_on(host: Session) -> None:
    with pytest.raises(RemoteError, match=r"files.open: ENOENT \(No such file or directory") as caught:
        host.files.open("/nowhere")
    assert caught.value.errno == errno.ENOENT
    assert "open_path" in caught.value.detail
    assert host.memory_free(settle=False) > 0


def test_a_fault_of_the_agent_is_not_blamed_on_the_kernel(host: Session) -> None:
    with pytest.raises(AgentError, match=r"host.clock: TypeError") as caught:
        host.call("host.clock", nonsense=1)
    assert isinstance(caught.value, InfraError)
    assert "answer" in caught.value.detail


def test_bytes_travel_as_bytes(host: Session) -> None:
    source, sink = host.files.pipe()
    assert sink.write_fd(b"\x00\xff\x1e\n") == 4
    assert source.read_fd(10) == b"\x00\xff\x1e\n"


def test_every_call_is_in_the_journal(host: Session) -> None:
    host.call("host.clock")
    with raises_errno(errno.ENOENT):
        host.files.open("/nowhere")
    first, second = host.journal.calls
    assert (first.operation, first.errno) == ("host.clock", 0)
    assert (second.operation, second.errno) == ("files.open", errno.ENOENT)
    assert 0 < first.remote_seconds < first.seconds


def test_garbage_on_the_stream_is_skipped(machine: StagedHost, host: Session) -> None:
    machine.inject(b'\x1e{"id": 1, "res\x00\xffult\n[    1.0] some message\n')
    assert host.call("host.clock")["monotonic"] > 0


def test_a_late_reply_is_not_taken_for_another_ones(machine: StagedHost, host: Session) -> None:
    machine.inject(wire.encode({"id": 77, "result": "late"}))
    assert host.call("host.clock") != "late"


def test_a_host_that_hangs_has_crashed_and_stays_so(host: Session) -> None:
    source, _ = host.files.pipe()
    with pytest.raises(CrashError, match="did not answer within the deadline: reading") as caught:
        host.call("files.read", Deadline.after(0.2, "reading"), file=source, length=1)
    with pytest.raises(CrashError) as again:
        host.call("host.clock")
    assert again.value is caught.value


def test_a_host_that_dies_is_noticed_at_once_and_stays_dead(machine: StagedHost, host: Session) -> None:
    machine.power_off()
    for _ in range(2):
        with pytest.raises(CrashError, match="the host died"):
            host.call("host.clock")


def test_a_boot_that_nobody_asked_for_is_a_crash(machine: StagedHost, host: Session) -> None:
    machine.boot()
    with pytest.raises(CrashError, match=r"booted again during host\.clock"):
        host.call("host.clock")


def test_an_agent_that_died_is_our_fault(machine: StagedHost, host: Session) -> None:
    machine.boot_ids.appendleft("boot-1")
    machine.boot()
    with pytest.raises(InfraError, match=r"the agent died during host\.clock"):
        host.call("host.clock")


def test_a_first_boot_that_does_not_come_is_a_boot_error() -> None:
    class Silent:
        def send(self, data: bytes, deadline: Deadline) -> None: ...

        def receive(self, deadline: Deadline) -> bytes:
            raise DeadlineError("nothing came")

    class Dead(Silent):
        def receive(self, deadline: Deadline) -> bytes:
            raise CrashError("Kernel panic", detail="the last lines")

    with pytest.raises(BootError, match="did not come up within the deadline: boot"):
        Session.open(Silent(), Deadline.after(1, "boot"))
    with pytest.raises(BootError, match="Kernel panic") as caught:
        Session.open(Dead(), Deadline.after(1, "boot"))
    assert caught.value.detail == "the last lines"


def test_an_agent_of_another_protocol_is_refused(machine: StagedHost) -> None:
    machine.inject(wire.encode({"hello": {"protocol": 99}}))
    with pytest.raises(InfraError, match="protocol 99"):
        Session.open(machine, Deadline.after(1, "boot"))


def test_deadlines_are_scaled(machine: StagedHost) -> None:
    host = Session.open(machine, Deadline.after(20, "the agent"), time_scale=5.0)
    assert 9 < host.deadline(2, "anything").remaining <= 10


def test_what_has_to_fail_must_fail_and_in_the_right_way(host: Session) -> None:
    with raises_errno(errno.EPERM, errno.ENOENT):
        host.files.open("/nowhere")
    with (
        pytest.raises(UnexpectedResult, match=r"ENOENT .*, where EPERM .* was to be"),
        raises_errno(errno.EPERM),
    ):
        host.files.open("/nowhere")
    with pytest.raises(UnexpectedResult, match="nothing failed, where EPERM"), raises_errno(errno.EPERM):
        host.call("host.clock")
