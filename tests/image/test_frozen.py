# SPDX-License-Identifier: GPL-2.0-or-later
"""The image's agent has started when the image is made. The real compiler, ptrace(2) and Python make it."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness.agent import wire
from harness.agent.pattern import PAGE
from harness.case import Update
from harness.command import run, spawn
from harness.deadline import Deadline
from harness.image import frozen
from harness.image.build import AGENT_FOLDER, build
from harness.image.frozen import Start
from harness.image.recipe import Recipe
from harness.store import Store

SECONDS = 30.0


class Agent:
    """The other end of what an agent waits on, from its first word on."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._decoder = end, wire.Decoder()
        self._end.settimeout(SECONDS)
        self._end.sendall(b"\0")
        self.hello = self._next()["hello"]

    def ask(self, operation: str, **arguments: object) -> wire.Message:
        self._end.sendall(wire.encode({"id": 1, "op": operation, "arguments": arguments}))
        reply = self._next()
        assert "error" not in reply, reply["error"]
        return reply

    def _next(self) -> wire.Message:
        while True:
            data = self._end.recv(1 << 16)
            assert data, "the agent ended"
            for message in self._decoder.feed(data):
                return message


@contextmanager
def going_on(root: Path, namespaces: tuple[str, ...]) -> Iterator[Agent]:
    """The agent of an image, in a world of its own whose root is the image's."""
    here, there = socket.socketpair()
    guest = f"mount --rbind /proc {root}/proc; exec chroot {root} {AGENT_FOLDER}/thaw 3<&0"
    with closing(here), spawn([*namespaces, "sh", "-c", guest], stdin=there.fileno()):
        there.close()
        yield Agent(here)


def test_it_goes_on_from_where_it_was_kept(root: Path, namespaces: tuple[str, ...]) -> None:
    with going_on(root, namespaces) as agent:
        assert agent.hello["protocol"] == wire.PROTOCOL
        assert agent.hello["pid"] == 1
        assert agent.hello["python"] == platform.python_version()
        memory = agent.ask("files.memfd_create", size=1 << 20)["result"]
        agent.ask("memory.fill", memory=memory, offset=0, length=1 << 20, seed=7)
        agent.ask("memory.flip", memory=memory, offset=PAGE)
        report = agent.ask("memory.verify", memory=memory, offset=0, length=1 << 20, seed=7)
        assert [difference["page"] for difference in report["result"]["differences"]] == [1]


def test_it_starts_others_of_its_kind(root: Path, namespaces: tuple[str, ...]) -> None:
    with going_on(root, namespaces) as agent:
        other = agent.ask("process.spawn")["result"]
        said = agent.ask("process.receive", process=other, seconds=SECONDS)
        assert b'"hello"' in bytes.fromhex(said["result"]["bytes"])


def test_its_clock_is_the_guests(root: Path, namespaces: tuple[str, ...]) -> None:
    with going_on(root, namespaces) as agent:
        started = agent.ask("host.started")["result"]
    assert abs(started["python"] - started["process"]) < SECONDS


def test_without_a_kept_one_the_arguments_are_started(tmp_path: Path) -> None:
    frozen.place_thaw(tmp_path, "")
    done = run([tmp_path / "thaw", "/bin/echo", "anew"], deadline=Deadline.after(SECONDS, "the other way"))
    assert done.output == "anew"


@pytest.mark.parametrize(
    ("interpreter", "why"),
    [
        ("/bin/false", "it ended with status 0x100 before it read"),
        ("/nowhere/python", "/nowhere/python: No such file or directory"),
    ],
)
def test_what_cannot_be_kept_leaves_nothing_and_says_why(tmp_path: Path, interpreter: str, why: str) -> None:
    package = tmp_path / "root/luh/agent/__pycache__"
    package.mkdir(parents=True)
    start = Start((interpreter,), (), "", ())
    assert why in frozen.place_agent(tmp_path / "root", AGENT_FOLDER, start, tmp_path / "scratch")
    assert not (tmp_path / "root/luh/frozen").exists()


def test_an_image_whose_agent_cannot_be_kept_is_made_and_says_so(
    minimal: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(frozen.ENVIRONMENT, "PYTHONHASHSEED", "nonsense")
    told: list[Update] = []
    image = build(minimal, Store(tmp_path), told.append)
    assert image.path.stat().st_size
    assert [update for update in told if "start anew in each kernel" in update.text]
