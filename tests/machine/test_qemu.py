# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's life: it starts, speaks, dies in every way, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.wire import Decoder, encode
from harness.case import Bench, Death
from harness.deadline import Deadline
from harness.errors import CrashError, DeadlineError, HarnessError, InfraError
from harness.machine.qemu import Machine, _pair

FakeQemu = Callable[..., None]


def soon(seconds: float = 20) -> Deadline:
    return Deadline.after(seconds, "the agent's answer")


def processes(bench: Bench) -> list[int]:
    """Those that were started for this bench: their command lines name its directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(bench.image.path).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_stays(bench: Bench) -> Iterator[None]:
    """After each test: no process, no descriptor, no file but the traces."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert processes(bench) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    traces = {path.name for path in bench.directory.glob("*")}
    assert traces <= {"qemu.argv", "qemu.log", "console.log"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the grace that a QEMU gets which does not end when it should."""
    monkeypatch.setattr("harness.machine.qemu.QUIT_SECONDS", 0.3)
    monkeypatch.setattr("harness.command.GRACE_SECONDS", 0.3)


def next_message(machine: Machine) -> dict[str, object]:
    decoder = Decoder()
    while True:
        if messages := decoder.feed(machine.receive(soon())):
            return messages[0]


def boot_id(machine: Machine) -> tuple[str, int]:
    hello = next_message(machine)["hello"]
    assert isinstance(hello, dict)
    return hello["boot_id"], hello["pid"]


def test_the_agent_answers_over_its_port(bench: Bench, fake_qemu: FakeQemu) -> None:
    with Machine(bench) as machine:
        boot_id(machine)
        machine.send(encode({"id": 1, "op": "host.clock"}), soon())
        assert next_message(machine)["id"] == 1
        assert processes(bench) == [machine.pid]


def test_traces_tell_what_happened(bench: Bench, fake_qemu: FakeQemu) -> None:
    with Machine(bench) as machine:
        boot_id(machine)
        at = machine.mark("agent")
        assert machine.marks == [("agent", at)]
        assert 0 < at <= machine.elapsed()
    first = "Linux version 7.3.4-fake (luh@luh) (gcc 12) #1 SMP PREEMPT"
    assert next(line.text for line in machine.console) == first
    log = (bench.directory / "console.log").read_text().splitlines()
    assert "# power on" in log[0]
    assert log[-1].endswith("# agent")
    argv = (bench.directory / "qemu.argv").read_text()
    assert argv.replace("\\\n", " ").split()[0] == machine.argv[0]
    assert "\n  -kernel " in argv


def test_a_kexec_changes_who_speaks_and_nothing_else(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("kexec")
    with Machine(bench) as machine:
        first, agent = boot_id(machine)
        os.kill(agent, signal.SIGKILL)
        second, _ = boot_id(machine)
        assert first != second
        assert processes(bench) == [machine.pid]


def test_a_large_message_passes_in_pieces(bench: Bench, fake_qemu: FakeQemu) -> None:
    with Machine(bench) as machine:
        boot_id(machine)
        text = "x" * 5_000_000
        machine.send(encode({"id": 1, "op": text}), soon())
        error = next_message(machine)["error"]
        assert isinstance(error, dict)
        assert len(error["message"]) > 5_000_000


@pytest.mark.parametrize(
    ("mood", "family", "message", "detail"),
    [
        ("panic=0.5", CrashError, "the kernel panicked: Fatal exception", "kvm_gmem_fault"),
        ("reboot=0.5", CrashError, "the guest rebooted", "Linux version"),
        ("reset=0.5", CrashError, "reset without a word", "Linux version"),
        ("poweroff=0.5", CrashError, "powered the machine off", "Linux version"),
        ("stuck=0.5", InfraError, "internal-error", ""),
        ("exit=0.5", InfraError, "status 3", "a disk is gone"),
        ("die=0.5", InfraError, "killed by SIGKILL", ""),
    ],
)
def test_an_end_is_known_at_once_and_for_good(
    bench: Bench, fake_qemu: FakeQemu, mood: str, family: type[HarnessError], message: str, detail: str
) -> None:
    fake_qemu(mood, "silent")
    with Machine(bench) as machine:
        for _ in range(2):
            with pytest.raises(family, match=message) as caught:
                machine.receive(soon())
            assert detail in caught.value.detail
        assert machine.elapsed() < 0.5 + 1.5


@pytest.mark.parametrize(
    ("mood", "reason"), [("loop=0.2", "CPU 0 loops"), ("halt=0.2", "all CPUs are halted")]
)
def test_a_guest_that_hangs_is_known_long_before_its_deadline(
    bench: Bench, fake_qemu: FakeQemu, mood: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    fake_qemu(mood, "silent")
    with Machine(bench) as machine:
        with pytest.raises(CrashError, match=f"the machine hangs: {reason}"):
            machine.receive(soon(60))
        assert machine.ending
        assert machine.ending.death is Death.HANG
        assert machine.ending.registers[0] == "CPU#0"
        assert machine.elapsed() < 10


def test_a_busy_machine_is_given_more_time_before_its_guest_hangs(
    bench: Bench, fake_qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (100.0, 0.0, 0.0))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    fake_qemu("loop=0.2", "silent")
    with Machine(bench) as machine, pytest.raises(DeadlineError):
        machine.receive(soon(6))


def test_a_guest_that_only_takes_its_time_meets_its_deadline_alone(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("silent")
    with Machine(bench) as machine:
        with pytest.raises(DeadlineError):
            machine.receive(soon(6))
        assert machine.ending is None


@pytest.mark.parametrize(("mood", "death"), [("reset=0.3", Death.RESET), ("poweroff=0.3", Death.POWEROFF)])
def test_a_death_that_nobody_waited_for_is_known_at_the_end(
    bench: Bench, fake_qemu: FakeQemu, mood: str, death: Death
) -> None:
    fake_qemu(mood, "silent")
    with Machine(bench) as machine:
        while not machine.ended:
            time.sleep(0.02)
    assert machine.ending
    assert (machine.ending.death, machine.ending.address) == (death, 0xFFFFFFFF81234567)


def test_the_memory_of_a_guest_that_dies_is_kept_on_demand(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("panic=0.3", "silent")
    with Machine(replace(bench, vmcore=True)) as machine, pytest.raises(CrashError):
        machine.receive(soon())
    assert machine.vmcore == bench.directory / "vmcore"
    names = machine.vmcore.read_bytes()[4096 + 16 + 12 :]
    fields = [names[at : at + 65].rstrip(b"\0").decode() for at in range(0, 6 * 65, 65)]
    assert fields == ["Linux", "", "7.3.4-fake", "#1 SMP PREEMPT", "x86_64", ""]
    machine.vmcore.unlink()


def test_sending_to_a_dead_machine_says_why_it_died(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("poweroff=0.2", "silent")
    with Machine(bench) as machine, pytest.raises(CrashError, match="powered the machine off"):
        while True:
            machine.send(b"x" * 10_000, soon())


def test_what_the_agent_said_before_the_end_is_heard(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("poweroff=1.5")
    with Machine(bench) as machine:
        while not machine.ended:
            time.sleep(0.02)
        assert boot_id(machine)
        with pytest.raises(CrashError):
            machine.receive(soon())


def test_a_guest_that_never_speaks_meets_the_deadline(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("silent")
    with Machine(bench) as machine:
        started = time.monotonic()
        with pytest.raises(DeadlineError, match="the agent's answer"):
            machine.receive(soon(0.3))
        assert 0.3 <= time.monotonic() - started < 1


def test_a_guest_that_never_listens_meets_the_deadline(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("silent")
    with Machine(bench) as machine, pytest.raises(DeadlineError):
        machine.send(b"x" * 50_000_000, soon(0.3))


def test_a_flood_on_the_console_stalls_nothing(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("flood")
    with Machine(bench) as machine:
        boot_id(machine)
    assert "flood 49999" in (line.text for line in machine.console)


def test_the_console_has_room_for_bytes_that_nobody_reads_yet() -> None:
    """A guest writes them one by one, and does not wait for long."""
    with ExitStack() as ours, ExitStack() as theirs:
        here, there = _pair(ours, theirs)
        os.set_blocking(there, False)
        for _ in range(500):
            os.write(there, b"x")
        assert len(here.recv(1000)) == 500


def test_commands_reach_qemu(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("silent")
    with Machine(bench) as machine:
        assert machine.monitor.execute("query-status", soon()) == {"status": "running", "running": True}
        with pytest.raises(InfraError, match="has not been found"):
            machine.monitor.execute("no-such-command", soon())


@pytest.mark.usefixtures("impatient")
def test_qemu_that_ignores_every_request_is_killed(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("stubborn", "silent")
    with Machine(bench):
        pass


@pytest.mark.usefixtures("impatient")
def test_qemu_that_is_stopped_is_killed(bench: Bench, fake_qemu: FakeQemu) -> None:
    with Machine(bench) as machine:
        os.kill(machine.pid, signal.SIGSTOP)


def test_qemu_that_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match="is not on PATH") as caught, Machine(bench):
        pass
    assert "qemu-system-x86" in caught.value.hint
    assert "luh doctor" in caught.value.hint


def test_qemu_that_refuses_to_start(bench: Bench, fake_qemu: FakeQemu) -> None:
    fake_qemu("refuse")
    with pytest.raises(InfraError, match="does not start") as caught, Machine(bench):
        pass
    assert "not a valid device model name" in caught.value.detail


@pytest.mark.parametrize("also", ["", "refuse"])
def test_qemu_that_is_too_old(bench: Bench, fake_qemu: FakeQemu, also: str) -> None:
    """Whether it starts or stumbles over an option that it does not know."""
    fake_qemu("old", also)
    with pytest.raises(InfraError, match=r"QEMU 5\.2 is too old: 7\.2"), Machine(bench):
        pass


def test_qemu_that_never_greets(bench: Bench, fake_qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.qemu.START_SECONDS", 0.5)
    fake_qemu("mute")
    with pytest.raises(DeadlineError, match="QEMU's start"), Machine(bench):
        pass


def test_a_directory_that_cannot_be_written(bench: Bench, fake_qemu: FakeQemu) -> None:
    with (
        pytest.raises(InfraError, match="cannot write to"),
        Machine(replace(bench, directory=Path("/proc/x"))),
    ):
        pass


def test_a_failing_test_body_ends_the_machine(bench: Bench, fake_qemu: FakeQemu) -> None:
    with pytest.raises(json.JSONDecodeError), Machine(bench):
        json.loads("no")
