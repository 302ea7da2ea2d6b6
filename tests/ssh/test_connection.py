# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom we talk to, and files over there; against a real server."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import Remote
from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError, UsageError
from harness.ssh.connection import connected
from harness.ssh.depot import Depot
from tests.ssh.conftest import _key


def soon() -> Deadline:
    return Deadline.after(60, "a test")


def test_known_server_runs_a_command(server: Remote) -> None:
    with connected(server, soon()) as connection:
        assert connection.run("cat; echo end", soon(), stdin=b"begin\n") == "begin\nend\n"
        with pytest.raises(InfraError, match=r"failed on .* with status 3") as caught:
            connection.run("sh -c 'echo why >&2; exit 3'", soon())
        assert caught.value.detail == "why"


def test_unknown_server_is_refused_with_the_words_that_make_it_known(unknown: Remote, server: Remote) -> None:
    with pytest.raises(UsageError, match="is not known") as caught, connected(unknown, soon()):
        pass
    assert f"--host-key '{server.host_key}'" in caught.value.hint
    line = caught.value.hint.partition("echo '")[2].partition("'")[0]
    file = server.identity.with_name("known") if server.identity else Path()
    file.write_text(line + "\n")
    with connected(replace(unknown, known_hosts=file), soon()) as connection:
        assert connection.run("echo in", soon()) == "in\n"


def test_server_with_another_key_is_refused(server: Remote, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="another key"),
        connected(replace(server, host_key=_key(tmp_path / "other")), soon()),
    ):
        pass


def test_key_that_is_not_let_in(server: Remote, tmp_path: Path) -> None:
    _key(tmp_path / "stranger")
    stranger = replace(server, identity=tmp_path / "stranger")
    with pytest.raises(UsageError, match="does not let us in"), connected(stranger, soon()):
        pass


def test_command_that_does_not_end_has_a_deadline(server: Remote) -> None:
    with connected(server, soon()) as connection:
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            connection.run("sleep 30", Deadline.after(1, "a nap"))
        assert time.monotonic() - began < 10


def test_file_is_copied_once(server: Remote, tmp_path: Path) -> None:
    file = tmp_path / "it's a file"
    file.write_bytes(os.urandom(300_000))
    with connected(server, soon()) as connection:
        depot = Depot(connection, str(tmp_path / "depot"))
        there = Path(depot.put(file, soon()))
        assert there.read_bytes() == file.read_bytes()
        first = there.stat()
        assert depot.put(file, soon()) == str(there)
        assert there.stat().st_mtime_ns == first.st_mtime_ns
        assert [path.name for path in there.parent.iterdir()] == [file.name]
