# SPDX-License-Identifier: GPL-2.0-or-later
"""A program in the place of QEMU, which runs QEMU on another machine; started as QEMU is, by machine/qemu.py.

    python -m harness.ssh.launcher REMOTE PATHS PROGRAM ARGUMENT...
    python -m harness.ssh.launcher REMOTE --probe-kvm

REMOTE is a case.Remote as JSON, PATHS an object of paths here and there. It lives as long as that QEMU and
ends with its status; when it is killed, or loses its connection, that QEMU is killed as well.
"""

from __future__ import annotations

import io
import json
import os
import re
import selectors
import shlex
import signal
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import paramiko

from harness.case import Remote
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.exchange import decode
from harness.machine.arguments import PROGRAM
from harness.ssh import supervisor
from harness.ssh.connection import Connection, connected
from harness.ssh.depot import Depot

CONNECT_SECONDS = 30.0
PROOF_SECONDS = 30.0
LIFE_SECONDS = 5.0
LOST = 255
CHUNK = 1 << 16
AGENT = Path(__file__).parents[1] / "agent"
PROOF = "import sys; sys.path.insert(0, {folder!r}); from agent.__main__ import main; main(['--probe-kvm'])"
INHERITED = re.compile(r"(?<=,fd=)\d+")


def translated(argv: Sequence[str], paths: Mapping[str, str]) -> tuple[list[int], list[str]]:
    """The descriptors that QEMU's arguments name, and the arguments for the other machine.

    These have its paths, and {1}, {2}, ... for the descriptors.
    """
    descriptors: list[int] = []

    def number(found: re.Match[str]) -> str:
        descriptors.append(int(found[0]))
        return "{%d}" % len(descriptors)  # noqa: UP031

    words = []
    for word in (PROGRAM, *argv[1:]):
        for here, there in paths.items():
            word = word.replace(here.replace(",", ",,"), there)
        words.append(INHERITED.sub(number, word) if word.startswith("socket,") else word)
    return descriptors, words


def launch(remote: Remote, paths: Mapping[str, str], argv: Sequence[str]) -> int:
    """Run QEMU there until it ends; its status as Popen gives it."""
    descriptors, words = translated(argv, paths)
    deadline = Deadline.after(CONNECT_SECONDS, f"starting QEMU on {remote}")
    with connected(remote, deadline) as connection:
        program = Depot.find(connection, deadline).put(Path(supervisor.__file__), deadline)
        command = shlex.join(["python3", "-I", program, str(len(descriptors)), *words])
        with connection.start(f"exec {command}", deadline) as channel:
            return _carry(channel, [socket.socket(fileno=descriptor) for descriptor in descriptors], remote)


def _carry(channel: paramiko.Channel, sockets: Sequence[socket.socket], remote: Remote) -> int:
    frames, spoken = supervisor.Frames(), time.monotonic()
    channel.settimeout(None)
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ, supervisor.CONTROL)
        for number, ours in enumerate(sockets, 1):
            selector.register(ours, selectors.EVENT_READ, number)
        while True:
            for key, _ in selector.select(LIFE_SECONDS):
                if key.data == supervisor.CONTROL:
                    data = channel.recv(CHUNK)
                    if not data:
                        return _lost(channel, remote)
                    for stream, piece in frames.feed(data):
                        if stream == supervisor.CONTROL:
                            return int(piece)
                        _deliver(stream, piece, sockets)
                elif data := _some(key.fd):
                    channel.sendall(supervisor.frame(key.data, data))
                else:
                    selector.unregister(key.fileobj)
            if time.monotonic() - spoken > LIFE_SECONDS:
                channel.sendall(supervisor.frame(supervisor.CONTROL, b""))
                spoken = time.monotonic()


def _deliver(stream: int, piece: bytes, sockets: Sequence[socket.socket]) -> None:
    if stream == supervisor.STDERR:
        sys.stderr.buffer.write(piece)
        sys.stderr.flush()
        return
    with suppress(OSError):
        if piece:
            sockets[stream - 1].sendall(piece)
        else:
            sockets[stream - 1].shutdown(socket.SHUT_WR)


def _some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""


def _lost(channel: paramiko.Channel, remote: Remote) -> int:
    while channel.recv_stderr_ready():
        sys.stderr.buffer.write(channel.recv_stderr(CHUNK))
    print(f"the connection to {remote} was lost, and QEMU there ended with it", file=sys.stderr, flush=True)
    return LOST


def prove(remote: Remote) -> int:
    """Run a vCPU there, with the agent; print what it says."""
    deadline = Deadline.after(PROOF_SECONDS, f"running a vCPU on {remote}")
    with connected(remote, deadline) as connection, tempfile.TemporaryDirectory(prefix="luh-") as folder:
        there = Depot.find(connection, deadline).unpack(_agent(Path(folder)), deadline)
        said = _proof(connection, there, deadline)
    print(said)
    return 0 if json.loads(said)["ok"] else 1


def _proof(connection: Connection, folder: str, deadline: Deadline) -> str:
    argv = ["python3", "-I", "-S", "-B", "-c", PROOF.format(folder=folder)]
    return connection.run(shlex.join(argv), deadline).strip()


def _agent(folder: Path) -> Path:
    """The agent as a tar file, the same bytes each time."""
    path = folder / "agent.tar"
    with tarfile.open(path, "w") as archive:
        for source in sorted(AGENT.glob("*.py")):
            data = source.read_bytes()
            member = tarfile.TarInfo(f"agent/{source.name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def main(arguments: list[str]) -> int:
    remote = decode(Remote, json.loads(arguments[0]))
    try:
        if arguments[1] == "--probe-kvm":
            return prove(remote)
        status = launch(remote, json.loads(arguments[1]), arguments[2:])
    except HarnessError as error:
        print("\n".join(filter(None, (error.message, error.detail))), file=sys.stderr, flush=True)
        return LOST
    if status < 0:  # QEMU was killed by a signal: so are we
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
