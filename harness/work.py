# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hand of the crew does: it makes itself ready while there is nothing else to do, then runs scenarios.

It is started (hand.py) with the number of a socket, on which its orders come: exchange.Orders, as JSON until
the end of the stream, and with these the descriptors of its log, of where its events go, of the file that the
whole crew has, and of a terminal where somebody sits there.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from types import FrameType

from harness import boot
from harness.case import Bench
from harness.exchange import Orders, decode

OPTIONS = (
    *("-c", os.devnull, "--strict-markers", "--import-mode=importlib", "-q", "--no-header", "--tb=short"),
    *("-p", "no:cacheprovider", "-p", "no:junitxml", "-p", "no:faulthandler"),
    # What no scenario has a use for and takes long to import, or at the end to collect garbage: Python tells
    # of exceptions that nobody could catch by itself.
    *("-p", "no:unittest", "-p", "no:debugging", "-p", "no:unraisableexception"),
)
CHUNK, DESCRIPTORS = 1 << 16, 4


def main() -> int:
    """Returns pytest's exit status, and 0 where no orders came."""
    gc.disable()  # nothing that is imported is garbage
    learning = threading.Thread(target=_learn, name="luh-imports")
    learning.start()
    with socket.socket(fileno=int(sys.argv[1])) as line:
        text, descriptors = _receive(line)
    if not text:
        return 0
    log, *rest = descriptors
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    signal.signal(signal.SIGTERM, _interrupt)
    return _obey(decode(Orders, json.loads(text)), learning, *rest)


def _learn() -> None:
    """Import what takes longest while a machine starts: what speaks to it, and pytest."""
    import harness.guest.session
    import harness.plugin

    assert harness.guest.session and harness.plugin


def _receive(line: socket.socket) -> tuple[bytes, list[int]]:
    text, descriptors, _, _ = socket.recv_fds(line, CHUNK, DESCRIPTORS)
    while chunk := line.recv(CHUNK):
        text += chunk
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return text, descriptors


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM leaves through every `with` and fixture, as Ctrl-C does."""
    raise KeyboardInterrupt


def _obey(
    orders: Orders, learning: threading.Thread, events: int, common: int, desk: int | None = None
) -> int:
    bench = decode(Bench, json.loads(orders.bench.read_text(encoding="utf-8")))
    with boot.ahead(bench, wanted=orders.eager) as ahead:
        learning.join()
        gc.freeze()  # nor is it at the end
        gc.enable()
        from harness import plugin

        run = plugin.Run(
            emit=plugin.Emitter(events),
            bench=bench,
            began=orders.began,
            desk=desk,
            common=common,
            ahead=ahead,
        )
        # Without confcutdir pytest lists all folders from / down, and takes a conftest.py of each.
        here = ("--rootdir", str(orders.folder), "--confcutdir", str(orders.folder))
        return plugin.start((*OPTIONS, *here, *orders.nodes), run)


if __name__ == "__main__":
    sys.exit(main())
