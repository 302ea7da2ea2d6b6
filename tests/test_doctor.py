# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor: what the machine has and lacks, and how the missing is installed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import doctor
from harness.case import Tool, Update, silent
from harness.command import find
from harness.doctor import State
from harness.errors import InfraError, UsageError

FROB = Tool("frobnicate", "frobnication", "frob-tools")

# Installs `frobnicate` beside itself, as soon as its lists have been updated.
APT = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/apt.log"
case "$*" in
*update*) touch "$here/updated" ;;
*install*) [ -e "$here/updated" ] || { echo "E: Unable to locate package"; exit 100; }
    printf '#!/bin/sh\\n' > "$here/frobnicate"; chmod +x "$here/frobnicate" ;;
esac
"""
SUDO = '#!/bin/sh\nshift\nexec "$@"\n'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one directory on PATH; it has what a shell script needs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("sh", "env", "dirname", "touch", "chmod", "true"):
        (directory / name).symlink_to(find(name))
    monkeypatch.setenv("PATH", str(directory))
    return directory


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def user(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: number)


def test_all_there_takes_no_time_and_installs_nothing(path: Path) -> None:
    program(path / "frobnicate", "#!/bin/sh\n")
    started = time.monotonic()
    doctor.ensure([FROB], allowed=False, progress=silent)
    assert time.monotonic() - started < 0.05


def test_root_gets_what_is_missing_and_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user(monkeypatch, 0)
    program(path / "apt-get", APT)
    told: list[Update] = []
    doctor.ensure([FROB], allowed=False, progress=told.append)
    assert (path / "frobnicate").exists()
    assert told[0].text == "installing frob-tools"
    assert told[-1].finished
    log = (path / "apt.log").read_text()
    assert "install -y --no-install-recommends frob-tools" in log
    assert "update" in log  # as the lists were not there yet


def test_a_user_without_leave_gets_the_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user(monkeypatch, 1000)
    program(path / "apt-get", APT)
    program(path / "sudo", SUDO)
    with pytest.raises(UsageError) as caught:
        doctor.ensure([FROB], allowed=False, progress=silent)
    assert "frobnicate" in caught.value.message
    assert caught.value.hint == "sudo apt-get install -y --no-install-recommends frob-tools"
    assert not (path / "apt.log").exists()


def test_a_user_with_leave_installs_through_sudo(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user(monkeypatch, 1000)
    program(path / "apt-get", APT)
    program(path / "sudo", SUDO)
    doctor.ensure([FROB], allowed=True, progress=silent)
    assert (path / "frobnicate").exists()


def test_without_apt_the_packages_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user(monkeypatch, 0)
    with pytest.raises(UsageError) as caught:
        doctor.ensure([FROB], allowed=True, progress=silent)
    assert "frob-tools" in caught.value.hint
    assert "apt-get" not in caught.value.hint


def test_a_failed_installation_is_the_machines_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user(monkeypatch, 0)
    program(path / "apt-get", "#!/bin/sh\necho 'E: no space left'\nexit 100\n")
    with pytest.raises(InfraError) as caught:
        doctor.ensure([FROB], allowed=False, progress=silent)
    assert "E: no space left" in caught.value.detail


def test_optional_tools_are_never_missing(path: Path) -> None:
    assert doctor.missing([Tool("frobnicate", "", "frob-tools", required=False)]) == ()


def test_optional_tools_come_along_but_are_no_reason_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(monkeypatch, 0)
    program(path / "apt-get", APT)
    optional = Tool("cache", "", "cache-tools", required=False)
    doctor.ensure([optional], allowed=True, progress=silent)
    assert not (path / "apt.log").exists()
    doctor.ensure([FROB, optional], allowed=False, progress=silent)
    assert "install -y --no-install-recommends frob-tools cache-tools" in (path / "apt.log").read_text()


def test_a_package_of_several_tools_is_named_once() -> None:
    command = doctor.install_command([FROB, Tool("unfrobnicate", "", "frob-tools")])
    assert command.count("frob-tools") == 1


def test_libraries_are_looked_for_where_the_compiler_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "frob.h").touch()
    monkeypatch.setattr(doctor, "FILE_DIRECTORIES", (str(tmp_path),))
    header, archive = doctor.located([Tool("frob.h", "", "frob-dev"), Tool("libfrob.a", "", "frob-dev")])
    assert (header.found, archive.found) == (str(tmp_path / "frob.h"), "")


def rows(system: Path, store: Path) -> dict[str, doctor.Row]:
    return {row.name: row for row in doctor.check(store, system=system).rows}


def test_an_old_tool_counts_as_missing(path: Path, tmp_path: Path) -> None:
    program(path / "qemu-system-x86_64", "#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian 1:5.2)'\n")
    program(path / "make", "#!/bin/sh\necho 'GNU Make 4.3'\n")
    found = rows(tmp_path, tmp_path)
    assert found["qemu-system-x86_64"].state is State.MISSING
    assert found["qemu-system-x86_64"].found == "5.2.0, needed 7.0"
    assert (found["make"].state, found["make"].found) == (State.OK, "4.3")
    assert found["flex"].state is State.MISSING


def test_a_machine_that_nests(path: Path, tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vmx sse\nprocessor\t: 1\nflags\t\t: fpu vmx sse\n",
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   4194304 kB\n",
        "sys/module/kvm_intel/parameters/nested": "Y\n",
        "dev/kvm": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = rows(tmp_path, tmp_path)
    assert found["CPUs"].found == "2, vmx"
    assert found["memory"].found == "4.0 GiB available"
    assert {found[name].state for name in ("CPUs", "memory", "/dev/kvm", "nesting")} == {State.OK}


def test_a_machine_that_cannot_nest_is_limited_but_well(path: Path, tmp_path: Path) -> None:
    found = rows(tmp_path, tmp_path / "store/not/yet/there")
    assert {found[name].state for name in ("CPUs", "/dev/kvm", "nesting", "memory")} == {State.LIMITED}
    assert found["disk"].found.endswith(f"free in {tmp_path}/store/not/yet/there")
