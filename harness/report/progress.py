# SPDX-License-Identifier: GPL-2.0-or-later
"""A line per phase while an attempt runs: live in a terminal, plain and seldom in a pipe or a CI log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from harness.case import Outcome, Progress, Update
from harness.report.words import MARKS, STYLES, duration

LABEL_WIDTH, MARK_WIDTH = 8, 3
BAR_WIDTH = 24
# Where there is no room for so much of it, what happens is not shown at all.
LEAST_TEXT = 12
BAR_FROM_COLUMNS = 90
PLAIN_INTERVAL_SECONDS = 30.0
REFRESH_PER_SECOND = 8
# What a terminal puts after the last line at Ctrl-C; on a line more, it would keep one from being erased.
ECHO = "^C"


@contextmanager
def display(console: Console, *, live: bool = True) -> Iterator[Progress]:
    """A Progress that shows on the console until the block is left; what is unfinished then is marked so."""
    if not live or not console.file.isatty() or console.is_dumb_terminal:
        yield _Plain(console).update
        return
    board = _Board(console)
    try:
        with Live(board, console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True):
            yield board.update
    finally:
        board.leave()


@dataclass(slots=True)
class _Line:
    """A phase under way: its last update, and when it began."""

    update: Update
    began: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began if self.update.took is None else self.update.took


class _Board:
    """The live lines at the bottom of a terminal; finished ones are printed above and scroll away."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: dict[str, _Line] = {}
        self._spinner = Spinner("dots" if console.encoding.startswith("utf") else "line", style="cyan")

    def update(self, update: Update) -> None:
        line = self._lines.setdefault(update.phase, _Line(update))
        line.update = update
        if update.finished:
            del self._lines[update.phase]
            if update.phase:
                self._console.print(_finished(line, self._console.width))
        # How all of it gets on is the last line.
        if whole := self._lines.pop("", None):
            self._lines[""] = whole

    def leave(self) -> None:
        self._lines.pop("", None)
        for line in self._lines.values():
            mark = Text(MARKS[Outcome.BROKEN], STYLES[Outcome.BROKEN])
            self._console.print(_row(mark, line, self._console.width, bar=False))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines.values():
            yield _row(self._mark(console), line, options.max_width - len(ECHO), bar=True)

    def _mark(self, console: Console) -> Text:
        frame: RenderableType = self._spinner.render(console.get_time())
        return frame if isinstance(frame, Text) else Text(" ")


def _finished(line: _Line, width: int) -> Text:
    outcome = line.update.outcome
    return _row(Text(MARKS[outcome], STYLES[outcome]), line, width, bar=False)


def _row(mark: Text, line: _Line, width: int, *, bar: bool) -> Text:
    """One line of exactly the width: mark, phase, what happens, and at the right how far and how long."""
    update = line.update
    right = Text(style="dim")
    if bar and update.done is not None:
        right.append_text(Text("  ") + _bar(update.done) if width >= BAR_FROM_COLUMNS else Text())
        right.append(f" {update.done:4.0%}")
        right.append(f"  {duration(update.left)} left" if update.left is not None else "")
    right.append(f"  {duration(line.seconds):>6}")
    room = width - right.cell_len - 1
    label = _shortened(update.phase, max(LABEL_WIDTH, room - MARK_WIDTH))
    left = Text(" ") + mark + Text(" ") + Text(f"{label:{LABEL_WIDTH}}", "bold" if bar else "")
    if room - left.cell_len >= LEAST_TEXT or left.cell_len + 2 + cell_len(update.text) <= room:
        left.append(f"  {update.text}", "" if bar else "dim")
    left.truncate(max(LABEL_WIDTH, room), overflow="ellipsis", pad=True)
    return left + right


def _shortened(name: str, room: int) -> str:
    """A name with its middle left out where there is no room: its end tells it from its neighbours."""
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[len(name) - end :]}"


def _bar(done: float) -> Text:
    filled = round(done * BAR_WIDTH)
    return Text("━" * filled, "green") + Text("━" * (BAR_WIDTH - filled), "bright_black")


class _Plain:
    """Whole lines without control characters: one when a phase ends, and a few while a long one runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: dict[str, _Line] = {}
        self._shown: dict[str, float] = {}

    def update(self, update: Update) -> None:
        line = self._lines.setdefault(update.phase, _Line(update))
        line.update = update
        if update.finished:
            del self._lines[update.phase]
            if update.phase:
                self._print(update.outcome.lower().replace("pass", "ok"), line)
        elif line.seconds - self._shown.get(update.phase, 0.0) >= PLAIN_INTERVAL_SECONDS:
            self._shown[update.phase] = line.seconds
            self._print("...", line)

    def _print(self, word: str, line: _Line) -> None:
        update = line.update
        extent = f", {update.done:.0%}" if update.done is not None and not update.finished else ""
        left = f", {duration(update.left)} left" if update.left is not None and not update.finished else ""
        text = f"{word:6}  {update.phase:{LABEL_WIDTH}}  {update.text}{extent}{left}".rstrip()
        self._console.print(
            f"{text}  ({duration(line.seconds)})", soft_wrap=True, markup=False, highlight=False, emoji=False
        )
