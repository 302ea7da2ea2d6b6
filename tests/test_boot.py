# SPDX-License-Identifier: GPL-2.0-or-later
"""How a scenario's host comes up: once by booting, then from the snapshot of that boot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from harness import boot
from harness.boot import Ahead, Boot
from harness.case import Accelerator, AcceleratorChoice, Bench, Disk
from harness.errors import CrashError
from harness.guest.journal import Journal
from harness.guest.session import Identity
from harness.machine import snapshot
from harness.machine.host import HostMachine
from harness.store import Store


class Host:
    """Brings up hosts of one bench, and keeps what was told meanwhile."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.journal = Journal()
        self.steps: list[str] = []
        self.remarks: list[str] = []
        self.machines: list[HostMachine] = []

    def up(self, ahead: Ahead | None = None) -> Identity:
        told = (self.steps.append, self.remarks.append, self.machines.append)
        with Boot(self.bench, self.journal, *told, ahead=ahead).host() as session:
            assert session.call("host.hello")["boot_id"] == session.identity.boot_id
            session.probe()
            return session.identity


@pytest.fixture
def bench(paper_bench: Bench, tmp_path: Path, standin: Callable[..., None]) -> Bench:
    return replace(paper_bench, snapshots=tmp_path / "store")


@pytest.fixture
def host(bench: Bench) -> Host:
    return Host(bench)


def test_second_host_starts_where_the_first_one_was_taken(host: Host) -> None:
    first, second = host.up(), host.up()
    assert first.boot_id == second.boot_id
    assert host.steps == ["booting, for a snapshot", "starting", "starting"]
    assert [phase.name for phase in host.journal.phases] == ["snapshot", "boot", "boot"]
    assert host.remarks == []


def test_what_the_kernel_can_do_is_found_out_once(host: Host) -> None:
    host.up()
    host.up()
    assert [call.operation for call in host.journal.calls].count("probe.capabilities") == 1


def test_host_that_was_started_ahead_is_the_first_that_is_wanted(host: Host, bench: Bench) -> None:
    taken = host.up()
    wanted = replace(bench, directory=bench.directory.with_name("wanted"))
    with boot.ahead(bench) as ahead:
        assert ahead
        host.bench = wanted
        assert host.up(ahead).boot_id == taken.boot_id
        assert host.machines[-1] is ahead.machine
        assert ahead.machine.ended
    assert [phase.name for phase in host.journal.phases] == ["snapshot", "boot", "boot"]
    # All that it did is on record where its scenario is.
    assert {call.operation for call in host.journal.calls} >= {"host.hello", "probe.capabilities"}
    traces = {path.name for path in wanted.directory.iterdir()}
    assert traces >= {"console.log", "qemu.argv", "qemu.log"}
    assert not (bench.directory / boot.AHEAD).exists()


def test_host_that_was_started_ahead_goes_where_another_is_wanted(host: Host, bench: Bench) -> None:
    host.up()
    with boot.ahead(bench) as ahead:
        assert ahead
        host.bench = replace(bench, machine=replace(bench.machine, kernel_parameters=("quiet",)))
        host.up(ahead)
        assert host.machines[-1] is not ahead.machine
        assert ahead.machine.ended


def test_host_that_was_started_ahead_and_died_is_nobodys(host: Host, bench: Bench) -> None:
    host.up()
    with boot.ahead(bench) as ahead:
        assert ahead
        os.kill(ahead.machine.pid, signal.SIGKILL)
        while not ahead.machine.why_ended():
            time.sleep(0.01)
        host.up(ahead)
    assert host.machines[-1] is not ahead.machine
    assert host.remarks == []


def test_host_that_was_started_ahead_and_is_not_wanted_leaves_nothing(host: Host, bench: Bench) -> None:
    host.up()
    with boot.ahead(bench) as ahead:
        assert ahead
        assert (bench.directory / boot.AHEAD / "console.log").exists()
    assert ahead.machine.ended
    assert not (bench.directory / boot.AHEAD).exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_no_host_is_started_ahead_without_a_snapshot(host: Host, wanted: bool) -> None:
    if not wanted:
        host.up()
    bench = host.bench if wanted else replace(host.bench, snapshots=None)
    with boot.ahead(bench) as ahead:
        assert ahead is None
        assert not (bench.directory / boot.AHEAD).exists()


def test_snapshot_that_no_host_starts_from_is_told_where_one_is_wanted(
    host: Host, bench: Bench, standin: Callable[..., None]
) -> None:
    host.up()
    standin("unloaded")
    with boot.ahead(bench) as ahead:
        host.up(ahead)
    (remark,) = host.remarks
    assert "load of migration failed" in remark
    assert host.steps[-1] == "booting"


def test_console_has_what_was_said_before_the_snapshot(host: Host, bench: Bench) -> None:
    host.up()
    host.up()
    restored = host.machines[-1]
    (banner,) = (line for line in restored.console if "Linux version" in line.text)
    assert banner.at < 0
    assert "| Linux version" in (bench.directory / "console.log").read_text()


def test_host_with_a_disk_of_programs_starts_from_a_snapshot_too(host: Host, tmp_path: Path) -> None:
    host.bench = replace(host.bench, disks=(Disk("selftests", tmp_path / "disk.erofs"),))
    assert host.up().boot_id == host.up().boot_id
    assert "serial=selftests" in (host.bench.directory / "qemu.argv").read_text()


def test_host_that_cannot_be_saved_boots_and_says_why(host: Host, standin: Callable[..., None]) -> None:
    standin("unsaved")
    assert host.up().boot_id != host.up().boot_id
    assert host.steps == ["booting, for a snapshot", "booting", "booting"]
    assert all("QEMU refuses a command" in remark for remark in host.remarks)


def test_host_that_does_not_start_from_its_snapshot_boots_and_says_why(
    host: Host, standin: Callable[..., None]
) -> None:
    host.up()
    standin("unloaded")
    host.up()
    (remark,) = host.remarks
    assert "load of migration failed" in remark
    # That is remembered, and not tried again.
    standin()
    host.up()
    assert host.steps[-2:] == ["booting", "booting"]


def test_snapshots_are_not_used_where_they_are_not_wanted(host: Host, tmp_path: Path) -> None:
    host.bench = replace(host.bench, snapshots=None)
    assert host.up().boot_id != host.up().boot_id
    assert not (tmp_path / "store").exists()


def test_kernel_that_does_not_boot_leaves_no_snapshot(
    host: Host, standin: Callable[..., None], tmp_path: Path
) -> None:
    standin("silent", "panic=0.2")
    with pytest.raises(Exception, match="the kernel panicked"):
        host.up()
    assert not [entry for entry in (tmp_path / "store/snapshots").iterdir() if entry.is_dir()]
    assert "Kernel panic" in host.machines[-1].console[-1].text


def test_snapshot_belongs_to_one_machine_and_its_kernels(bench: Bench) -> None:
    other = replace(bench.kernel, digest="another")
    benches = [
        bench,
        replace(bench, kernel=other),
        replace(bench, next_kernel=other),
        replace(bench, image=replace(bench.image, digest="another")),
        replace(bench, machine=replace(bench.machine, memory=bench.machine.memory * 2)),
        replace(bench, machine=replace(bench.machine, kernel_parameters=("quiet",))),
        replace(bench, choice=AcceleratorChoice(Accelerator.KVM, "a test")),
        replace(bench, disks=(Disk("selftests", Path("/store/disks/one/disk.erofs")),)),
        replace(bench, disks=(Disk("selftests", Path("/store/disks/two/disk.erofs")),)),
    ]
    assert len({snapshot.key(one) for one in benches}) == len(benches)
    # Neither the place of the traces nor the seed is anything that a guest could see.
    assert snapshot.key(replace(bench, seed=2, directory=Path("/elsewhere"))) == snapshot.key(bench)


@pytest.fixture
def have(host: Host, tmp_path: Path) -> Callable[[int], Path]:
    """The snapshot for a machine with so many MiB; what is taken are 16 KiB."""

    def have(memory: int) -> Path:
        bench = replace(host.bench, machine=replace(host.bench.machine, memory=memory << 20))

        def take(directory: Path) -> None:
            (directory / "memory0").write_bytes(bytes(16 << 10))

        deadline = Boot(bench, host.journal, print, print, print)._deadline("a test")
        return snapshot.provide(bench, Store(tmp_path / "store"), take, deadline).directory

    return have


def test_snapshots_that_were_not_used_for_longest_go_first(
    have: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "KEPT_BYTES", 40 << 10)
    first, second = have(256), have(512)
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert have(256) == first  # used again
    third = have(1024)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)


def test_snapshot_that_another_run_removes_is_left_to_it(have: Callable[[int], Path]) -> None:
    (have(256) / "a file").symlink_to("one that is gone by now")
    assert have(512).exists()


@pytest.mark.parametrize("crowding", [1.0, 8.0])
def test_crowded_machine_makes_a_run_slower_and_never_red(
    bench: Bench, standin: Callable[..., None], crowding: float
) -> None:
    """All that a guest says comes late; a machine that knows itself to be that slow waits for it."""
    standin("kexec sluggish=1.5")
    # So that a call may take a second here, and not fifty.
    quick = replace(bench.kernel, slowness=0.02)
    slow = replace(bench, kernel=quick, next_kernel=quick, crowding=20.0, snapshots=None)
    boot = Boot(slow, Journal(), lambda step: None, lambda remark: None, lambda machine: None)
    with boot.host() as host:
        host.time_scale = replace(slow, crowding=crowding).time_scale
        late = pytest.raises(CrashError, match="did not answer within the deadline")
        with late if crowding == 1.0 else nullcontext():
            began = time.monotonic()
            host.memory_free(settle=False)
            assert time.monotonic() - began > 1.5
