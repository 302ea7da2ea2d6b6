# SPDX-License-Identifier: GPL-2.0-or-later
"""A tarball is what its SHA-256 says or nothing; a download that was cut off goes on where it stopped."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.case import Provider, Source, silent
from harness.errors import InfraError, UsageError
from harness.kernel import source
from harness.store import Store

Shell = Callable[[str, Path], str]


class Server(ThreadingHTTPServer):
    """Serves one file; each reply is cut off after the next number of bytes in `cuts`."""

    data = b""
    ranges = True
    cuts: tuple[int, ...] = ()
    asked: tuple[str, ...] = ()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "") if self.server.ranges else ""
        self.server.asked += (wanted,)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        data = self.server.data[begin:]
        cut, self.server.cuts = (self.server.cuts or (len(data),))[0], self.server.cuts[1:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def tarball(linux: Path, sh: Shell) -> Path:
    sh("tar -caf linux-7.3.1.tar.gz linux", linux.parent)
    return linux.parent / "linux-7.3.1.tar.gz"


@pytest.fixture
def server(tarball: Path) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.data = tarball.read_bytes()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def named(server: Server, data: bytes) -> tuple[Source]:
    """The server's file, pinned to the digest of `data`."""
    url = f"http://127.0.0.1:{server.server_port}/linux-7.3.1.tar.gz"
    return (Source(Provider.TARBALL, url, pin=hashlib.sha256(data).hexdigest()),)


def test_a_tarball_is_fetched_and_unpacked_once(server: Server, store: Store) -> None:
    tree = source.checkout(named(server, server.data), store, silent)
    assert tree.version == "7.3.1"
    assert source.checkout(named(server, server.data), store, silent) == tree
    assert len(server.asked) == 1


def test_a_download_that_is_cut_off_goes_on(server: Server, store: Store) -> None:
    server.cuts = (1000,)
    assert source.checkout(named(server, server.data), store, silent).version == "7.3.1"
    assert server.asked == ("", "bytes=1000-")


def test_it_starts_again_where_the_server_cannot_go_on(server: Server, store: Store) -> None:
    server.cuts, server.ranges = (1000,), False
    assert source.checkout(named(server, server.data), store, silent).version == "7.3.1"


def test_what_was_fetched_serves_the_next_run(server: Server, store: Store) -> None:
    server.cuts = (1000, 0, 0)
    with pytest.raises(InfraError, match=r"cannot download .*cut off after 1000 of"):
        source.checkout(named(server, server.data), store, silent)
    source.checkout(named(server, server.data), store, silent)
    assert server.asked[-1] == "bytes=1000-"


def test_a_beginning_of_another_file_is_thrown_away(server: Server, store: Store) -> None:
    wanted = named(server, server.data)
    right, server.data = server.data, b"x" * len(server.data)
    server.cuts = (1000, 0, 0)
    with pytest.raises(InfraError):
        source.checkout(wanted, store, silent)
    server.data = right
    assert source.checkout(wanted, store, silent).version == "7.3.1"


def test_a_wrong_file_is_refused_and_not_kept(server: Server, store: Store) -> None:
    with pytest.raises(InfraError, match="has the SHA-256"):
        source.checkout(named(server, b"something else"), store, silent)
    assert not list(store.root.rglob("*.tar.gz"))
    assert not list(store.root.glob("source/[0-9a-f]*"))


def test_a_file_of_the_users_is_verified_and_stays(tarball: Path, store: Store) -> None:
    pin = hashlib.sha256(tarball.read_bytes()).hexdigest()
    for location in (str(tarball), tarball.as_uri()):
        assert (
            source.checkout((Source(Provider.TARBALL, location, pin=pin),), store, silent).version == "7.3.1"
        )
    assert tarball.exists()
    with pytest.raises(UsageError, match="has the SHA-256"):
        source.checkout((Source(Provider.TARBALL, str(tarball), pin="0" * 64),), store, silent)


def test_an_unreachable_server_is_an_error_of_the_machine(server: Server, store: Store) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(InfraError, match="cannot download") as caught:
        source.checkout(named(server, server.data), store, silent)
    assert "network" in caught.value.hint
