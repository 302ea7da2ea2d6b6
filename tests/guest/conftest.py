# SPDX-License-Identifier: GPL-2.0-or-later
"""A host whose agents are real processes of this machine, and whose kexecs are staged."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harness import command
from harness.agent import wire
from harness.deadline import Deadline
from harness.errors import CrashError, DeadlineError
from harness.guest.session import Session

ROOT = Path(__file__).parents[2]


class StagedHost:
    """A transport to a real agent. It performs all but kexec.*, of which this answers what it is told to.

    refuses: the errno that reboot(KEXEC) fails with, or 0. boot_ids: of the boots to come; without any, the
    host hangs at a kexec. Each boot is an agent process of its own.
    """

    def __init__(self, boot_ids: tuple[str, ...] = ("boot-1", "boot-2", "boot-3")) -> None:
        self.boot_ids = deque(boot_ids)
        self.refuses = 0
        self.operations: list[str] = []
        self._answers = bytearray()
        self._decoder = wire.Decoder()
        self._boot = ExitStack()
        self.boot()

    def boot(self) -> None:
        """End the agent and start the next boot's."""
        self.power_off()
        self._stream, theirs = socket.socketpair()
        self._boot.enter_context(self._stream)
        argv = [sys.executable, "-m", "harness.agent", "--stream", str(theirs.fileno())]
        with theirs:
            identity = {"LUH_BOOT_ID": self.boot_ids.popleft()}
            child = command.spawn(argv, cwd=ROOT, env=identity, pass_fds=[theirs.fileno()], stderr=2)
            self._boot.enter_context(child)

    def power_off(self) -> None:
        self._boot.close()

    def inject(self, data: bytes) -> None:
        """Bytes that come from the host before anything else does."""
        self._answers += data

    def send(self, data: bytes, deadline: Deadline) -> None:
        for request in self._decoder.feed(data):
            self.operations.append(request["op"])
            if request["op"].startswith("kexec."):
                self._stage(request)
            else:
                with suppress(OSError):  # receive() tells that the host died
                    self._stream.sendall(wire.encode(request))

    def receive(self, deadline: Deadline) -> bytes:
        if self._answers:
            data, self._answers = bytes(self._answers), bytearray()
            return data
        try:
            self._stream.settimeout(deadline.check())
            data = self._stream.recv(1 << 16)
        except TimeoutError:
            raise DeadlineError(f"nothing came: {deadline.purpose}") from None
        except OSError:
            data = b""
        if not data:
            raise CrashError("the host died")
        return data

    def _stage(self, request: wire.Message) -> None:
        if request["op"] != "kexec.reboot":
            self.inject(wire.encode({"id": request["id"], "seconds": 0.0, "result": None}))
        elif self.refuses:
            error = {"errno": self.refuses, "name": "E", "message": "refused", "traceback": []}
            self.inject(wire.encode({"id": request["id"], "seconds": 0.0, "error": error}))
        elif self.boot_ids:
            self.boot()


@pytest.fixture
def machine() -> Iterator[StagedHost]:
    staged = StagedHost()
    yield staged
    staged.power_off()


@pytest.fixture
def host(machine: StagedHost) -> Session:
    return Session.open(machine, Deadline.after(20, "the agent"), command_line="kho=on")
