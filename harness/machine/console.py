# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial console: read without a pause, kept line by line with the host's time.

QEMU stops the guest while the console's socket is full, so a thread of its own empties it always.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pexpect
from pexpect.fdpexpect import fdspawn

from harness.errors import InfraError

CHUNK = 1 << 16
KEPT_LINES = 100_000
LONGEST_LINE = 1 << 14
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the console without its end. at: seconds since power-on when its first byte came.

    A machine that started from a snapshot was powered on before its start: those lines have a negative time.
    """

    at: float
    text: str


OnLine = Callable[[Line], None]


class Console:
    """What the guest says on its serial port.

    The file has all of it, as it comes: `   1.234567 | text` for a line of the guest, and `#` in the place
    of `|` for a remark of ours (the wall-clock time of power-on, phases).
    """

    def __init__(
        self,
        ours: socket.socket,
        file: io.TextIOBase,
        elapsed: Callable[[], float],
        on_line: OnLine | None = None,
    ) -> None:
        self._socket = ours
        self._file = file
        self._elapsed = elapsed
        self._on_line = on_line
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._pending = Line(0.0, "")
        self._trouble: OSError | None = None
        self._ended = threading.Event()

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines so far (the last 100,000), with the one that has not ended yet."""
        with self._lock:
            return (*self._lines, *((self._pending,) if self._pending.text else ()))

    def recall(self, lines: Iterable[Line]) -> None:
        """Put down what the guest said before its snapshot was taken."""
        with self._lock:
            for line in lines:
                self._lines.append(line)
                self._write(line, "|")
            self._flush()

    def tail(self, count: int) -> str:
        """The last lines as text."""
        return "\n".join(line.text for line in self.lines[-count:])

    def remark(self, text: str) -> None:
        """Put a remark of ours between the guest's lines in the file."""
        with self._lock:
            self._write(Line(self._elapsed(), text), "#")

    def wait_ended(self, seconds: float) -> bool:
        """Whether all that the guest said has been read, because QEMU is gone."""
        return self._ended.wait(seconds)

    def check(self) -> None:
        """Raise InfraError if the file could not be written."""
        if self._trouble:
            raise InfraError(f"cannot write the console's log: {self._trouble.strerror}") from self._trouble

    def drain(self) -> None:
        """Read until QEMU is gone; the body of the thread."""
        stream = fdspawn(self._socket.fileno(), timeout=None, encoding="utf-8", codec_errors="replace")
        try:
            while True:
                text = stream.read_nonblocking(CHUNK, timeout=None)
                with self._lock:
                    self._take(text)
        except (pexpect.EOF, OSError):
            with self._lock:
                self._take("\n" if self._pending.text else "")
        finally:
            self._ended.set()

    def _take(self, text: str) -> None:
        now = self._elapsed()
        *whole, rest = text.split("\n")
        for part in whole:
            self._extend(part, now)
            self._finish()
        self._extend(rest, now)
        if len(self._pending.text) > LONGEST_LINE:
            self._finish()
        self._flush()

    def _extend(self, part: str, now: float) -> None:
        began = self._pending.at if self._pending.text else now
        self._pending = Line(began, self._pending.text + part)

    def _finish(self) -> None:
        line = Line(self._pending.at, self._pending.text.rstrip("\r"))
        self._pending = Line(0.0, "")
        self._lines.append(line)
        if self._on_line:
            self._on_line(line)
        self._write(line, "|")

    def _write(self, line: Line, mark: str) -> None:
        """Keep reading when the disk is full: the guest must not stop for it."""
        if self._trouble is None:
            try:
                self._file.write(f"{line.at:12.6f} {mark} {line.text}\n")
            except OSError as error:
                self._trouble = error

    def _flush(self) -> None:
        if self._trouble is None:
            try:
                self._file.flush()
            except OSError as error:
                self._trouble = error


@contextmanager
def recorded(
    ours: socket.socket,
    path: Path,
    powered_on: float,
    on_line: OnLine | None = None,
    past: Iterable[Line] = (),
) -> Iterator[Console]:
    """A console that is read from now on into `path`, until the block is left and QEMU is gone.

    ours: our end of the socket pair, closed at the end. powered_on: the monotonic time that counts as 0.
    on_line: called with each line as it ends, in the console's thread. past: lines from before that.
    """
    with ours, path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        console = Console(ours, file, lambda: time.monotonic() - powered_on, on_line)
        console.recall(past)
        console.remark(f"power on {datetime.now(UTC).isoformat()}")
        reader = threading.Thread(target=console.drain, name="luh-console", daemon=True)
        reader.start()
        try:
            yield console
        finally:
            if not console.wait_ended(CLOSE_SECONDS):
                ours.shutdown(socket.SHUT_RDWR)
            reader.join()
