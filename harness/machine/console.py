# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial console: read by a thread of its own, kept line by line with the host's time.

A guest waits for a full serial port for a moment, and then its bytes are lost: the thread never stops
reading. It reads what a millisecond brings, because each byte that it waited for would take its time from
the guest.
"""

from __future__ import annotations

import io
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pexpect
from pexpect.fdpexpect import fdspawn

from harness.errors import InfraError

# More than a socket holds of what QEMU writes byte by byte: one read takes all that has come.
CHUNK = 1 << 20
GATHER_SECONDS = 0.001
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
        self._stream = fdspawn(ours.fileno(), timeout=0, encoding="utf-8", codec_errors="replace")
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
            self._catch_up()
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
            self._catch_up()
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
        try:
            while True:
                select.select([self._stream], [], [])
                time.sleep(GATHER_SECONDS)
                with self._lock:
                    self._hear()
        except (pexpect.EOF, OSError):
            with self._lock:
                self._take("\n" if self._pending.text else "")
        finally:
            self._ended.set()

    def _catch_up(self) -> None:
        """Take what has come since the thread last read; its end is the thread's to see."""
        if not self._ended.is_set():
            with suppress(pexpect.EOF, OSError):
                self._hear()

    def _hear(self) -> None:
        with suppress(pexpect.TIMEOUT):
            text = self._stream.read_nonblocking(CHUNK)
            for start in range(0, len(text), LONGEST_LINE):
                self._take(text[start : start + LONGEST_LINE])

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
    on_line: called with each line as it ends, in the thread that reads it: the console's own, or one that
    looks at the lines. past: lines from before that.
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
