# SPDX-License-Identifier: GPL-2.0-or-later
"""The console: nothing is lost, nothing stalls, every line has its time."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.machine.console import Console, recorded


@pytest.fixture
def guest() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def after(ours: socket.socket, theirs: socket.socket, path: Path, *writes: bytes) -> Console:
    """The console after the guest wrote that and went."""
    with recorded(ours, path, time.monotonic()) as console:
        for data in writes:
            theirs.sendall(data)
        theirs.close()
    return console


def texts(console: Console) -> list[str]:
    return [line.text for line in console.lines]


def test_lines_are_kept_in_memory_and_on_disk(
    guest: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    console = after(*guest, tmp_path / "log", b"one\r\ntw", b"o\r\n\r\nlast")
    assert texts(console) == ["one", "two", "", "last"]
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(r" +\d+\.\d{6} # power on \d{4}-.*\+00:00", first)
    assert [re.sub(r"^ +\d+\.\d{6} \| ", "", line) for line in rest] == texts(console)


def test_a_line_that_has_not_ended_is_seen(
    guest: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = guest
    with recorded(ours, tmp_path / "log", time.monotonic()) as console:
        theirs.sendall(b"login: ")
        limit = time.monotonic() + 5
        while not console.lines and time.monotonic() < limit:
            time.sleep(0.01)
        assert texts(console) == ["login: "]
        theirs.close()


def test_who_looks_sees_all_that_has_come(
    guest: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the reader gathers: a guest that is stopped now is kept with its last lines."""
    monkeypatch.setattr("harness.machine.console.GATHER_SECONDS", 0.5)
    ours, theirs = guest
    with recorded(ours, tmp_path / "log", time.monotonic()) as console:
        theirs.sendall(b"one\n")
        theirs.sendall(b"two\n")
        assert texts(console) == ["one", "two"]
        theirs.sendall(b"three\n")
        console.remark("after three")
        theirs.close()
    assert [line[15:] for line in (tmp_path / "log").read_text().splitlines()[-2:]] == [
        "three",
        "after three",
    ]


def test_a_line_has_the_time_of_its_first_byte(
    guest: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = guest
    with recorded(ours, tmp_path / "log", time.monotonic()) as console:
        theirs.sendall(b"be")
        time.sleep(0.2)
        theirs.sendall(b"gun\nnext\n")
        theirs.close()
    begun, following = console.lines
    assert begun.at < 0.15 < following.at


def test_what_is_no_text_does_not_end_it(guest: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    console = after(
        *guest,
        tmp_path / "log",
        b"\xff\xfe\x00\x1b[0m\n",
        "gr\u00fc\u00df\n".encode()[:3],
        "\u00fc\n".encode(),
    )
    assert texts(console)[0] == "\ufffd\ufffd\x00\x1b[0m"
    assert len((tmp_path / "log").read_text().splitlines()) == 3


def test_a_flood_is_read_to_its_end(guest: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    started = time.monotonic()
    console = after(*guest, tmp_path / "log", b"".join(b"line %d\r\n" % number for number in range(200_000)))
    assert texts(console)[-1] == "line 199999"
    assert len(console.lines) == 100_000, "memory is bounded"
    assert sum(1 for _ in (tmp_path / "log").open()) == 200_001, "the file has it all"
    assert time.monotonic() - started < 10


def test_a_line_without_an_end_is_cut(guest: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    console = after(*guest, tmp_path / "log", b"x" * 1_000_000)
    assert sum(len(text) for text in texts(console)) == 1_000_000
    assert len(console.lines) > 5


def test_a_full_disk_does_not_stop_the_guest(guest: tuple[socket.socket, socket.socket]) -> None:
    console = after(*guest, Path("/dev/full"), b"one\n" * 10_000)
    assert texts(console)[-1] == "one"
    with pytest.raises(InfraError, match="No space left"):
        console.check()
