# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's second console, where a shell is: read without a pause, and shown to whoever is attached."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK = 1 << 16
KEPT_BYTES = 1 << 16

Sink = Callable[[bytes], None]


class Terminal:
    """What is written on a terminal elsewhere, and the way to type there.

    descriptor: reads and writes it, and blocks. Without somebody attached the last 64 KiB are kept for who
    attaches next; so the next kernel's shell is found with its greeting. ended: set when the other side, for
    a guest QEMU, is gone.
    """

    def __init__(self, descriptor: int) -> None:
        self.ended = threading.Event()
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._kept = b""
        self._sink: Sink | None = None
        self._on_end: Callable[[], None] | None = None

    def on_end(self, act: Callable[[], None] | None) -> None:
        """Have this called, in the reader's thread, when the other side is gone; at once if it is."""
        with self._lock:
            self._on_end = act
            if act and self.ended.is_set():
                act()

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
        rest = memoryview(data)
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def drain(self) -> None:
        """Read until the other side is gone; the body of the thread."""
        with suppress(OSError):
            while data := os.read(self._descriptor, CHUNK):
                with self._lock:
                    self._take(data)
        with self._lock:
            self.ended.set()
            if self._on_end:
                self._on_end()

    def _take(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-KEPT_BYTES:]
        if self._sink:
            self._sink(data)
            self._kept = self._kept.rpartition(b"\n")[2]


@contextmanager
def attended(ours: socket.socket) -> Iterator[Terminal]:
    """A terminal that is read from now on, until the block is left and QEMU is gone."""
    ours.setblocking(True)
    terminal = Terminal(ours.fileno())
    reader = threading.Thread(target=terminal.drain, name="luh-terminal", daemon=True)
    reader.start()
    try:
        yield terminal
    finally:
        with suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        reader.join()
