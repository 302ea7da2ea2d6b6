# SPDX-License-Identifier: GPL-2.0-or-later
"""An SSH server of OpenSSH's on loopback, with keys made for each test."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import command
from harness.case import Remote, silent
from harness.deadline import Deadline
from harness.doctor import need

CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
"""


def _key(path: Path) -> str:
    """Make a key; its public half as known_hosts has it."""
    deadline = Deadline.after(20, "a key")
    command.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], deadline=deadline)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Remote]:
    """The server as it is known; `host_key` can be left out to make it unknown."""
    need(("sshd", "ssh-keygen"), allowed=False, progress=silent)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host_key = _key(folder / "host_key")
    (folder / "authorized_keys").write_text(_key(folder / "identity") + "\n")
    (folder / "config").write_text(CONFIGURATION.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the server, as root, goes to have no privileges
    name = command.run(["id", "-un"], deadline=Deadline.after(5, "our name")).output.strip()
    with command.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"], stderr=2) as process:
        _await(port, process)
        yield Remote(name, "127.0.0.1", port, folder / "identity", None, host_key)


@pytest.fixture
def unknown(server: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """The same server, to a user who has never seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return replace(server, host_key="")


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = Deadline.after(20, "the SSH server")
    while process.poll() is None:
        deadline.check()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the SSH server does not start")
