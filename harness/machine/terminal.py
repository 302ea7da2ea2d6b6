# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's second console, where a shell is: read without a pause, and shown to whoever is attached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK = 1 << 16
KEPT_BYTES = 1 << 16

Sink = Callable[[bytes], None]


class Terminal:
    """What the guest writes on its second console, and the way to type there.

    Without somebody attached the last 64 KiB are kept for who attaches next; so the next kernel's shell is
    found with its greeting. ended: set when QEMU is gone.
    """

    def __init__(self, ours: socket.socket) -> None:
        self.ended = threading.Event()
        self._socket = ours
        self._lock = threading.Lock()
        self._kept = b""
        self._sink: Sink | None = None

    def attach(self, sink: Sink) -> None:
        """Give the sink what was kept, then all that comes; it is called in the reader's thread."""
        with self._lock:
            self._sink = sink
            if self._kept:
                sink(self._kept)

    def detach(self) -> None:
        """Keep what comes again, from the line that the cursor is in."""
        with self._lock:
            self._sink = None

    def type(self, data: bytes) -> None:
        """Bytes as from a keyboard; lost if the machine is gone."""
        with suppress(OSError):
            self._socket.sendall(data)

    def drain(self) -> None:
        """Read until QEMU is gone; the body of the thread."""
        with suppress(OSError):
            while data := self._socket.recv(CHUNK):
                with self._lock:
                    self._take(data)
        self.ended.set()

    def _take(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-KEPT_BYTES:]
        if self._sink:
            self._sink(data)
            self._kept = self._kept.rpartition(b"\n")[2]


@contextmanager
def attended(ours: socket.socket) -> Iterator[Terminal]:
    """A terminal that is read from now on, until the block is left and QEMU is gone."""
    ours.setblocking(True)
    terminal = Terminal(ours)
    reader = threading.Thread(target=terminal.drain, name="luh-terminal", daemon=True)
    reader.start()
    try:
        yield terminal
    finally:
        with suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        reader.join()
