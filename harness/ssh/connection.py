# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to an SSH server whose key is known; commands over it, each with a deadline."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko

from harness.case import Remote
from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError, UsageError

CHUNK = 1 << 16
ADDRESS = re.compile(r"ssh://(?:(?P<user>[^@/]+)@)?(?P<host>\[[^]]+\]|[^:/@]+)(?::(?P<port>\d+))?/?")
KEEPALIVE_SECONDS = 5
# It prints a traceback for each connection that is refused, which a rebooting machine does many times.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def parse(
    address: str, *, identity: Path | None = None, known_hosts: Path | None = None, host_key: str = ""
) -> Remote:
    """The remote of ssh://USER@HOST[:PORT]. Raises UsageError."""
    found = ADDRESS.fullmatch(address)
    if not found or not found["user"]:
        raise UsageError(f"{address!r} is no address of an SSH server", hint="write ssh://USER@HOST[:PORT]")
    if identity and not identity.is_file():
        raise UsageError(f"there is no key {identity}")
    return Remote(
        found["user"], found["host"].strip("[]"), int(found["port"] or 22), identity, known_hosts, host_key
    )


class Connection:
    """An authenticated connection; closed by `connected`."""

    def __init__(self, client: paramiko.SSHClient, remote: Remote) -> None:
        self.remote = remote
        self._client = client

    def start(self, command: str, deadline: Deadline) -> paramiko.Channel:
        """Start a command of the login shell there; the caller closes the channel."""
        with _told(self.remote):
            channel = self._transport.open_session(timeout=deadline.check())
            channel.settimeout(deadline.check())
            channel.exec_command(command)
            return channel

    def run(self, command: str, deadline: Deadline, *, stdin: bytes | Path = b"") -> str:
        """What a command says on stdout. Raises InfraError with its last words where its status is not 0."""
        channel = self.start(command, deadline)
        with channel, _told(self.remote):
            _feed(channel, stdin, deadline)
            channel.shutdown_write()
            said = _all(channel, deadline)
            wrong = channel.makefile_stderr("rb").read().decode(errors="replace")
            status = channel.recv_exit_status()
        if status != 0:
            name = shlex.split(command)[0] if command else command
            raise InfraError(f"{name} failed on {self.remote} with status {status}", detail=wrong.strip())
        return said.decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self._transport.is_active()

    @property
    def _transport(self) -> paramiko.Transport:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise InfraError(f"the connection to {self.remote} is gone")
        return transport


@contextmanager
def connected(remote: Remote, deadline: Deadline) -> Iterator[Connection]:
    """A connection to the server, which has proved that it is the one that is known.

    Raises UsageError where its key is unknown or another, or where it lets nobody in with the keys that there
    are; InfraError where there is no server; DeadlineError where it does not answer.
    """
    client = paramiko.SSHClient()
    try:
        _trust(client, remote)
        with _told(remote):
            seconds = deadline.check()
            client.connect(
                remote.host,
                remote.port,
                remote.user,
                key_filename=str(remote.identity) if remote.identity else None,
                allow_agent=remote.identity is None,
                look_for_keys=remote.identity is None,
                timeout=seconds,
                banner_timeout=seconds,
                auth_timeout=seconds,
                channel_timeout=seconds,
            )
        connection = Connection(client, remote)
        connection._transport.set_keepalive(KEEPALIVE_SECONDS)
        yield connection
    finally:
        client.close()


def _trust(client: paramiko.SSHClient, remote: Remote) -> None:
    """The keys by which the server is known: the one that was given, or those of the files."""
    name = remote.host if remote.port == 22 else f"[{remote.host}]:{remote.port}"
    client.set_missing_host_key_policy(_Refuse(remote))
    if remote.host_key:
        line = f"{name} {remote.host_key}"
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        if entry is None or entry.key is None:
            raise UsageError(
                f"{remote.host_key!r} is no host key", hint="write it as known_hosts has it: KIND BASE64"
            )
        client.get_host_keys().add(name, entry.key.get_name(), entry.key)
        return
    client.load_system_host_keys()
    if remote.known_hosts:
        if not remote.known_hosts.is_file():
            raise UsageError(f"there is no file {remote.known_hosts}")
        client.load_host_keys(str(remote.known_hosts))


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Whose key is unknown may be anybody; say how to make it known."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        line = f"{key.get_name()} {key.get_base64()}"
        raise UsageError(
            f"the key of {self._remote} is not known: {key.get_name()} {_fingerprint(key)}",
            hint=f"if that is its key: --host-key '{line}'\n"
            f"or: echo '{hostname} {line}' >> ~/.ssh/known_hosts",
        )


def _fingerprint(key: paramiko.PKey) -> str:
    """As ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


@contextmanager
def _told(remote: Remote) -> Iterator[None]:
    """paramiko's exceptions as ours, by whose fault."""
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise UsageError(
            f"{remote} has another key than the one that is known: {_fingerprint(error.key)}",
            hint="somebody may be in between; else remove its old line from known_hosts",
        ) from error
    except paramiko.AuthenticationException as error:
        raise UsageError(
            f"{remote} does not let us in with the keys that there are",
            hint="name one with --identity, or add it to the agent (ssh-add)",
        ) from error
    except TimeoutError as error:
        raise DeadlineError(f"{remote} does not answer") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise InfraError(f"the connection to {remote} failed: {error or type(error).__name__}") from error


def _feed(channel: paramiko.Channel, data: bytes | Path, deadline: Deadline) -> None:
    if isinstance(data, bytes):
        channel.sendall(data)
        return
    with data.open("rb") as file:
        while piece := file.read(CHUNK):
            channel.settimeout(deadline.check())
            channel.sendall(piece)


def _all(channel: paramiko.Channel, deadline: Deadline) -> bytes:
    said = b""
    while True:
        channel.settimeout(deadline.check())
        piece = channel.recv(CHUNK)
        if not piece:
            return said
        said += piece


def wait_readable(channel: paramiko.Channel, seconds: float) -> bool:
    """Whether something, or the end, came within so many seconds."""
    end = time.monotonic() + seconds
    while not (channel.recv_ready() or channel.closed or channel.eof_received):
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True
