# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process: it greets, answers, and no request or peer makes it end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import command
from harness.agent import wire
from harness.deadline import Deadline

ROOT = Path(__file__).parents[2]
SECONDS = 20.0


class Peer:
    """The other end of an agent's stream, for requests one at a time."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.decoder = wire.Decoder()

    def next(self) -> wire.Message:
        while True:
            data = self.stream.recv(1 << 16)
            assert data, "the agent ended"
            if messages := self.decoder.feed(data):
                return messages[0]

    def ask(self, op: str, **arguments: object) -> wire.Message:
        self.stream.sendall(wire.encode({"id": 1, "op": op, "arguments": arguments}))
        return self.next()


@pytest.fixture
def peer() -> Iterator[Peer]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-I", "-S", "-E", "-c", isolated(), "--stream", str(theirs.fileno())]
        with command.spawn(argv, cwd=ROOT / "harness", pass_fds=[theirs.fileno()], stderr=2):
            theirs.close()
            ours.settimeout(SECONDS)
            yield Peer(ours)


def isolated() -> str:
    """Starts the agent as the image does: as a package called `agent`, with nothing of ours beside it."""
    return (
        f"import sys; sys.path.insert(0, {str(ROOT / 'harness')!r})\n"
        "from agent.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )


def test_it_says_who_it_is(peer: Peer) -> None:
    hello = peer.next()["hello"]
    assert hello["protocol"] == wire.PROTOCOL
    assert hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert hello["release"] == os.uname().release
    assert set(hello["kho"]) == {"enabled", "kexec_count", "previous_release"}
    assert peer.ask("host.hello")["result"]["pid"] == hello["pid"]


def test_objects_and_bytes_go_by_handle_and_in_hexadecimal(peer: Peer) -> None:
    peer.next()
    made = peer.ask("files.memfd_create", size=8192)["result"]
    peer.ask("memory.write", memory=made, offset=4095, data={"bytes": "00ff"})
    assert peer.ask("memory.read", memory=made, offset=4094, length=4)["result"] == {"bytes": "0000ff00"}
    other = peer.ask("files.dup", file=made)["result"]
    assert other != made
    assert peer.ask("files.size", file=other)["result"] == 8192


@pytest.mark.parametrize(
    ("op", "arguments", "name"),
    [
        ("files.open", {"path": "/nowhere"}, "ENOENT"),
        ("no.such", {}, "ENOSYS"),
        ("os.system", {"command": "true"}, "ENOSYS"),
        ("files.open", {}, "TypeError"),
        ("files.size", {"file": {"handle": 99}}, "KeyError"),
        ("memory.write", {"memory": 1, "offset": 0, "data": {"bytes": "zz"}}, "ValueError"),
    ],
)
def test_a_failed_request_is_answered_and_the_next_one_works(
    peer: Peer, op: str, arguments: dict[str, Any], name: str
) -> None:
    peer.next()
    error = peer.ask(op, **arguments)["error"]
    assert error["name"] == name
    assert (error["errno"] is None) == name.endswith("Error")
    assert any("answer" in line for line in error["traceback"])
    assert "result" in peer.ask("host.clock")


def test_garbage_and_malformed_requests_do_not_end_it(peer: Peer) -> None:
    peer.next()
    peer.stream.sendall(b'\x1e{"id": 1, "op": "ho\x00\xff\n[1]\n\x1e{}\n')
    assert peer.next()["error"]["name"] == "KeyError"
    assert "result" in peer.ask("host.memory")


def test_it_starts_with_few_modules() -> None:
    """Under TCG each costs milliseconds of every boot."""
    script = isolated().rsplit("\n", 1)[0] + (
        "\nbefore = set(sys.modules); import agent.__main__, agent.host\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-I", "-S", "-E", "-c", script]
    names = command.run(argv, deadline=Deadline.after(SECONDS, "imports")).output.split()
    costly = {
        "typing",
        "dataclasses",
        "ctypes",
        "subprocess",
        "threading",
        "re",
        "traceback",
        "argparse",
        "pathlib",
    }
    assert not costly.intersection(names)


def by_hand(*arguments: str, stdin: str = "") -> command.Completed:
    argv = [sys.executable, "-m", "harness.agent", *arguments]
    return command.run(argv, cwd=ROOT, stdin=stdin, check=False, deadline=Deadline.after(SECONDS, "agent"))


def test_a_person_can_use_it_by_hand() -> None:
    done = by_hand(stdin='host.hello\n\nfiles.memfd_create {"size": 4096}\nfiles.memfd_create {oops\n')
    first, second, third = map(json.loads, done.output.splitlines())
    assert first["result"]["release"] == os.uname().release
    assert second["result"] == {"handle": 1}
    assert "not JSON" in third["error"]["message"]


def test_help_lists_the_operations() -> None:
    done = by_hand("--help")
    assert done.status == 0
    assert "liveupdate.preserve" in done.output
    assert by_hand("--nonsense").status == 2


def test_the_probe_prints_one_line_of_json() -> None:
    done = by_hand("--probe-kvm")
    result = json.loads(done.output)
    assert result["ok"] == (done.status == 0)
    assert result["reason"]


def test_it_can_speak_through_standard_input_and_output() -> None:
    argv = [sys.executable, "-m", "harness.agent", "--stdio"]
    with command.spawn(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        child.stdin.write(wire.encode({"id": 5, "op": "host.clock"}))
        child.stdin.close()
        hello, reply = wire.Decoder().feed(child.stdout.read())
    assert "hello" in hello
    assert reply["id"] == 5


FIRST_WORD = """
import os, sys
exists, os.path.exists = os.path.exists, lambda path: path != "/proc/modules" and exists(path)
main = sys.modules["agent.__main__"]
main._load_modules()
main.find("host.hello")()
print(*sys.modules)
"""


def test_nothing_dear_is_imported_before_the_first_word() -> None:
    """Under TCG each of these is 0.05 to 0.2 s of every live update; this kernel has no modules."""
    start = isolated().replace("main(sys.argv[1:])", f"exec({FIRST_WORD!r})")
    done = command.run(
        [sys.executable, "-I", "-S", "-c", start], cwd=ROOT / "harness", deadline=Deadline.after(SECONDS, "")
    )
    assert not {"ctypes", "struct", "json", "re", "enum", "fcntl", "runpy"} & set(done.output.split())
