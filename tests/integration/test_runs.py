# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job with nothing faked: kernels that live-update, that cannot, and that die."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import command
from harness.case import MiB
from harness.deadline import Deadline
from harness.image import interpreter
from tests.integration.conftest import ROOT, Ran, build


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a scenario of a test's own."""

    def write(body: str) -> Path:
        path = tmp_path / "test_own.py"
        path.write_text(f"import pytest\nfrom harness.errors import *\n{body}")
        return path

    return write


def test_memory_survives_in_every_order(luh_run: Callable[..., Ran]) -> None:
    """`luh run` as a first-time user types it."""
    ran = luh_run()
    assert ran.status == 0, ran.output
    assert ran.result["outcome"] == "PASS"
    assert ran.result["totals"]["failed"] == ran.result["totals"]["skipped"] == 0
    survived = [one for name, one in ran.scenarios.items() if name.startswith("test_memory_survives")]
    assert len(survived) == 4
    for one in survived:
        (update,) = one["live_updates"]
        assert update["from_boot_id"] != update["to_boot_id"]
        assert update["kexec_count"] == 1
        # The guest checked what it wrote, the host all of it.
        assert one["bytes_verified"] == 5 * MiB + 16 * MiB
        console = (ran.directory / one["traces"] / "console.log").read_text()
        assert console.count("Linux version 7.3") == 2
    assert len([name for name in ran.scenarios if name.startswith("test_checker_sees_damage")]) == 3
    assert "CONFIG_LIVEUPDATE_GUEST_MEMFD=y" in (ran.directory / "kernel.config").read_text()


def test_scenario_of_the_readme_passes(luh_run: Callable[..., Ran], tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "my_scenario.py").write_text(readme.partition("```python\n")[2].partition("```")[0])
    ran = luh_run(tmp_path / "my_scenario.py")
    assert ran.status == 0, ran.output
    assert ran.scenarios["test_memory_survives"]["bytes_verified"] == 16 * MiB


def test_kernel_without_the_series_is_skipped_with_the_reason(luh_run: Callable[..., Ran]) -> None:
    build("--series", "none")
    ran = luh_run("test_memory_survives", "--series", "none")
    assert ran.status == 1
    assert ran.result["outcome"] == "SKIP"
    assert "cannot preserve a VM" in ran.result["reason"]
    assert {one["outcome"] for one in ran.result["scenarios"]} == {"SKIP"}
    assert "Traceback" not in ran.output


def test_kernel_that_panics_at_boot_shows_its_last_words(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path]
) -> None:
    mark = '@pytest.mark.machine(kernel_parameters=("init=/nowhere",))'
    ran = luh_run(scenario(f"{mark}\ndef test_it(host):\n    pass\n"))
    assert ran.status == 1
    assert ran.result["outcome"] == "FAIL"
    assert "Requested init /nowhere failed" in ran.result["reason"]
    assert "Kernel panic - not syncing" in ran.output
    # Known by the panic, not by a deadline.
    assert ran.result["scenarios"][0]["seconds"] < 20


def test_host_that_reboots_by_itself_is_a_fail(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path]
) -> None:
    ran = luh_run(scenario("def test_it(host):\n    host.call('kexec.reboot', command='restart')\n"))
    assert ran.status == 1
    (finding,) = ran.result["scenarios"][0]["findings"]
    # The line is known as long as the kernel's build directory is there.
    assert re.fullmatch(r"|drivers/acpi/reboot\.c:\d+", place := finding["place"])
    told = "the host rebooted, in the first kernel"
    assert ran.result["reason"] == (f"{told}, {place}" if place else told)


def test_qemu_that_is_killed_is_never_blamed_on_the_kernel(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path]
) -> None:
    body = """
import os, signal
from harness import plugin
def test_it(host, request):
    os.kill(request.node.stash[plugin.TRIAL].machine.pid, signal.SIGKILL)
    host.memory_free()
"""
    ran = luh_run(scenario(body))
    assert ran.status == 3
    assert ran.result["outcome"] == "BROKEN"
    assert "QEMU ended by itself: killed by SIGKILL" in ran.result["reason"]


@pytest.mark.long
def test_agent_that_is_killed_in_the_guest_is_not_blamed_on_the_kernel(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path]
) -> None:
    """init starts another one, which says that it is in the same boot."""
    body = f"""
from harness.guest import program
def test_it(host):
    kill = f"import posix; posix.kill({{host.identity.agent_pid}}, 9)"
    program.run(host, [{str(interpreter.executable())!r}, "-I", "-S", "-c", kill], 20.0)
    host.memory_free()
"""
    ran = luh_run(scenario(body))
    assert ran.status == 3, ran.output
    assert ran.result["outcome"] == "BROKEN"
    assert "the agent died during process." in ran.result["reason"]
    assert "was started again" in ran.result["reason"]
    assert ran.result["scenarios"][0]["seconds"] < 60


@pytest.mark.long
def test_guest_that_floods_its_console_is_listened_to(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path]
) -> None:
    body = """
import os
@pytest.mark.machine(kernel_parameters=("printk.devkmsg=on",))
def test_it(host):
    for _ in range(2):
        log = host.files.open("/dev/kmsg", os.O_WRONLY)
        for number in range(2000):
            log.write_fd(f"flood {number} {'x' * 200}".encode())
        host = host.live_update()
"""
    ran = luh_run(scenario(body))
    assert ran.status == 0, ran.output
    (one,) = ran.result["scenarios"]
    assert len(one["live_updates"]) == 2
    console = (ran.directory / one["traces"] / "console.log").read_text()
    assert console.count("] flood ") == 4000
    assert (ran.directory / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing_behind(
    interrupted: Callable[..., int], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    assert interrupted(number, "Linux version", "test_memory_survives") == status
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert str(tmp_path) not in text


@pytest.mark.long
def test_memory_of_a_host_that_fails_is_opened_by_drgn(
    luh_run: Callable[..., Ran], scenario: Callable[[str], Path], tmp_path: Path
) -> None:
    """It finds the virtual machine of the kernel that had come, and who holds it."""
    kernel = ("--kernel", "linux-7.3-vmcore")
    vmlinux = re.search(r"^vmlinux +(\S+)$", build(*kernel), re.MULTILINE)
    assert vmlinux
    body = """
def test_it(host):
    host = host.live_update()
    host.kvm.create_vm()
    raise AssertionError("look at the memory")
"""
    ran = luh_run(scenario(body), "--vmcore", *kernel)
    assert ran.status == 1, ran.output
    (one,) = ran.result["scenarios"]
    script = tmp_path / "look.py"
    script.write_text(
        """\
from drgn.helpers.linux import for_each_task, list_for_each_entry
machines = list(list_for_each_entry("struct kvm", prog["vm_list"].address_of_(), "vm_list"))
owners = {task.comm.string_().decode() for task in for_each_task(prog) if task.mm == machines[0].mm}
print(prog["init_uts_ns"].name.release.string_().decode(), len(machines), *owners)
"""
    )
    drgn = Path(sys.executable).with_name("drgn")
    core = ran.directory / one["traces"] / "vmcore"
    deadline = Deadline.after(120, "drgn")
    said = command.run([drgn, "-q", "-c", core, "-s", vmlinux[1], script], deadline=deadline)
    assert re.fullmatch(r"7\.3\.\d+ 1 python3\S*", said.output.strip().splitlines()[-1]), said.output
