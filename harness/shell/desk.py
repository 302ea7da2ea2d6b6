# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands this terminal to the scenarios' process and back, for a prompt where a scenario failed.

The process leads a session of its own, and so cannot have our terminal as its own: Ctrl-C would end us. It
gets a pseudo-terminal, which ours is joined with for as long as somebody is at the prompt.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.errors import UsageError
from harness.machine.terminal import Terminal
from harness.shell.attach import attach


class Desk:
    """The pseudo-terminal, on our side. descriptor: what the scenarios' process inherits."""

    def __init__(self, ours: int, descriptor: int) -> None:
        self.descriptor = descriptor
        self._ours = ours
        self.terminal = Terminal(ours)

    def serve(self, until: int) -> None:
        """Join our terminal with it until a descriptor can be read."""
        attach(self.terminal, self._resize, until=until)

    def _resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def opened() -> Iterator[Desk]:
    """A desk in front of a person. Raises UsageError where there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--keep needs a terminal, for the prompt at the failure")
    ours, theirs = os.openpty()
    desk = Desk(ours, theirs)
    reader = threading.Thread(target=desk.terminal.drain, name="luh-desk", daemon=True)
    reader.start()
    try:
        yield desk
    finally:
        os.close(theirs)  # the last one: the scenarios' process is gone, and the reader sees the end
        reader.join()
        os.close(ours)


@contextmanager
def sat_at(descriptor: int) -> Iterator[None]:
    """In the scenarios' process: that terminal is its own, and standard input and output."""
    with suppress(OSError):  # it is ours since the last time
        fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    kept = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for number in range(3):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, buffering=1, closefd=False)  # input() edits lines on 0 and 1 alone
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)
