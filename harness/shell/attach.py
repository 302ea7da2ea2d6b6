# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins this process's terminal with one elsewhere: keys go there, what is written there is shown here."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from types import FrameType

from harness.errors import UsageError
from harness.machine.terminal import Terminal

LEAVE = b"\x1d"  # Ctrl-]
# Leaves the screen that a full-screen program had to itself, shows the cursor, ends colours (ECMA-48, xterm).
PLAIN_SCREEN = b"\x1b[?1049l\x1b[?25h\x1b[0m"
# What the guest's init writes when a shell has ended (guest-images/init.c).
SHELL_ENDED = b"\x1b]777;luh;shell ended\x07"
CHUNK = 1 << 12
LAST_SECONDS = 0.05

Resize = Callable[[int, int], None]


class Left(StrEnum):
    """Why a terminal was left."""

    KEY = "key"  # Ctrl-]
    ENDED = "ended"  # the shell there ended
    GONE = "gone"  # the machine did
    CALLED = "called"  # what the caller waited for came


def attach(terminal: Terminal, resize: Resize, *, until: int | None = None) -> Left:
    """Join the terminals until one of the ends named by Left.

    resize: told the size of ours, in rows and columns, at once and whenever it changes. until: a descriptor;
    the terminals are joined until it can be read, and then Ctrl-] is a key like any other. Raises UsageError
    where standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to show it on", hint='sh("COMMAND") runs one command')
    with ExitStack() as stack:
        stack.enter_context(_raw(sys.stdin.fileno()))
        alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, alarm)
        stack.enter_context(_told_of_size(resize))
        screen = _Screen(alarm)
        terminal.attach(screen)
        stack.callback(terminal.detach)
        screen.looks_for_end = True  # from now on: a shell that ended before was nobody's
        terminal.on_end(lambda: os.eventfd_write(alarm, 1))
        stack.callback(terminal.on_end, None)
        with selectors.DefaultSelector() as selector:
            for source in (sys.stdin.fileno(), alarm, *(() if until is None else (until,))):
                selector.register(source, selectors.EVENT_READ)
            return _join(terminal, screen, selector, until)


def _join(terminal: Terminal, screen: _Screen, selector: selectors.BaseSelector, until: int | None) -> Left:
    keyboard = sys.stdin.fileno()
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if terminal.ended.is_set():
            return Left.GONE
        if screen.shell_ended:
            return Left.ENDED
        if until in ready:
            time.sleep(LAST_SECONDS)  # what was written before that is on its way
            return Left.CALLED
        if keyboard in ready:
            typed = os.read(keyboard, CHUNK)
            before, leave, _ = typed.partition(LEAVE) if until is None else (typed, b"", b"")
            terminal.type(before)
            if leave or not typed:
                _write_all(sys.stdout.fileno(), PLAIN_SCREEN)
                return Left.KEY


class _Screen:
    """Writes what comes on our terminal; sees the end of the shell there."""

    def __init__(self, alarm: int) -> None:
        self.shell_ended = self.looks_for_end = False
        self._alarm = alarm
        self._last = b""

    def __call__(self, data: bytes) -> None:
        _write_all(sys.stdout.fileno(), data)
        if not self.looks_for_end:
            return
        self._last = (self._last + data)[-CHUNK:]
        if SHELL_ENDED in self._last:
            self.shell_ended = True
            os.eventfd_write(self._alarm, 1)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key is a byte for the other side, Ctrl-C too."""
    sys.stdout.flush()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _told_of_size(resize: Resize) -> Iterator[None]:
    def tell(number: int | None = None, frame: FrameType | None = None) -> None:
        columns, rows = os.get_terminal_size(sys.stdin.fileno())
        resize(rows, columns)

    tell()
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
