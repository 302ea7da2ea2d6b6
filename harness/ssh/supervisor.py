# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on the other machine, with nothing but its Python: starts QEMU, and carries its streams.

    python3 supervisor.py COUNT PROGRAM ARGUMENT...

Arguments have {1}, {2}, ... in the places of descriptors. Standard input and output have frames: a stream's
number (a byte), a length (four bytes, big-endian), and so many bytes. Streams 1 to COUNT are QEMU's sockets,
0 is its stderr, and 255 its end, with the status as text; towards here 255 is a sign of life. QEMU is killed
when standard input ends, or is silent for long: whoever wanted it is gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_SECONDS = 30.0
CHUNK = 1 << 16
ROOM = 8 << 20  # as in machine/qemu.py
STDERR, CONTROL = 0, 255
HEADER = struct.Struct(">BI")
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


class Frames:
    """Bytes in pieces of any size -> frames."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._pending += data
        while len(self._pending) >= HEADER.size:
            stream, length = HEADER.unpack_from(self._pending)
            end = HEADER.size + length
            if len(self._pending) < end:
                return
            frame, self._pending = self._pending[HEADER.size : end], self._pending[end:]
            yield stream, frame


def frame(stream: int, data: bytes) -> bytes:
    return HEADER.pack(stream, len(data)) + data


def main(count: int, argv: list[str]) -> None:
    pairs = [socket.socketpair() for _ in range(count)]
    for number, (_, theirs) in enumerate(pairs, 1):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        argv = [word.replace("{%d}" % number, str(theirs.fileno())) for word in argv]  # noqa: UP031
    source, sink = os.pipe()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=sink,
        pass_fds=[theirs.fileno() for _, theirs in pairs],
        preexec_fn=_die_with_us,
        start_new_session=True,
    )
    os.close(sink)
    for _, theirs in pairs:
        theirs.close()
    try:
        _carry([ours for ours, _ in pairs], source)
    finally:
        child.kill()
        status = child.wait()
    _tell(CONTROL, str(status).encode())


def _carry(sockets: list[socket.socket], errors: int) -> None:
    """Until all of QEMU's streams have ended, or nobody wants them."""
    frames, heard = Frames(), time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ, CONTROL)
        selector.register(errors, selectors.EVENT_READ, STDERR)
        for number, ours in enumerate(sockets, 1):
            selector.register(ours, selectors.EVENT_READ, number)
        while len(selector.get_map()) > 1 and time.monotonic() - heard < SILENCE_SECONDS:
            for key, _ in selector.select(1.0):
                data = _some(key.fd)
                if key.data == CONTROL:
                    if not data:
                        return
                    heard = time.monotonic()
                    for stream, piece in frames.feed(data):
                        if stream != CONTROL:
                            _deliver(sockets[stream - 1], piece)
                    continue
                _tell(key.data, data)
                if not data:
                    selector.unregister(key.fileobj)


def _die_with_us() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _tell(stream: int, data: bytes) -> None:
    rest = frame(stream, data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""


def _deliver(ours: socket.socket, piece: bytes) -> None:
    with contextlib.suppress(OSError):  # QEMU has hung up, which its own streams tell
        ours.sendall(piece)


def _leave(number: int, frame: object) -> None:
    sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, _leave)
    signal.signal(signal.SIGTERM, _leave)
    main(int(sys.argv[1]), sys.argv[2:])
