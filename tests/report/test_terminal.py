# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees: in a pipe, in terminals of several widths, with and without colours."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.cells import cell_len

from harness.case import Outcome, Update, Verdict
from harness.report import words
from harness.report.progress import display
from harness.report.summary import show
from harness.report.terminal import console


def build_steps(count: int) -> Iterator[Update]:
    for number in range(count):
        yield Update("build", f"{number} of {count} objects", done=number / count, left=10.0)
    yield Update("build", "7.3.4, 9 patches", finished=True)


def test_pipe_gets_one_plain_line_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.progress.time.monotonic", lambda: 0.0)
    stream = io.StringIO()
    with display(console(stream)) as progress:
        for update in build_steps(2000):
            progress(update)
        progress(Update("test_a", "page 3 differs", finished=True, outcome=Outcome.FAIL, took=2.5))
    assert stream.getvalue() == (
        "ok      build     7.3.4, 9 patches  (0.0 s)\nfail    test_a    page 3 differs  (2.5 s)\n"
    )


def test_long_phase_shows_life_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("harness.report.progress.time.monotonic", lambda: now)
    stream = io.StringIO()
    with display(console(stream)) as progress:
        for update in build_steps(30):
            progress(update)
            now += 10.0
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("...     build     ")
    assert "%" in lines[0]
    assert "left" in lines[0]


def test_brackets_in_names_are_no_markup() -> None:
    stream = io.StringIO()
    with display(console(stream)) as progress:
        progress(Update("test_a[vm,memory]", "[red]booting[/red]", finished=True))
    assert "test_a[vm,memory]  [red]booting[/red]" in stream.getvalue()


def all_of(terminal: int) -> str:
    """What was written to a terminal whose other end is closed; that end reads as EIO on Linux."""
    text = b""
    with os.fdopen(terminal, "rb", buffering=0) as stream, suppress(OSError):
        while chunk := stream.read(1 << 16):
            text += chunk
    return text.decode()


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_finished_lines_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    primary, secondary = pty.openpty()
    with os.fdopen(secondary, "w", encoding="utf-8") as stream:
        monkeypatch.setenv("COLUMNS", str(columns))
        with display(console(stream, color=False)) as progress:
            progress(Update("build", "x" * 200, finished=True))
    text = all_of(primary)
    (line,) = (line for line in text.replace("\r", "\n").splitlines() if "✓" in line)
    visible = line[line.index(" ✓") :]
    assert cell_len(visible) <= columns
    assert "…" in visible
    assert visible.rstrip().endswith("0.0 s")


def shown_live(monkeypatch: pytest.MonkeyPatch, columns: int, *updates: Update) -> str:
    """All that a terminal of that width gets, as text."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    primary, secondary = pty.openpty()
    stream = os.fdopen(secondary, "w", encoding="utf-8")
    with stream, display(console(stream, color=False)) as progress:
        for update in updates:
            progress(update)
    return all_of(primary)


def test_names_that_begin_alike_stay_apart_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"test_{'of_a_long_name_' * 5}"
    ends = [Update(f"{name}[{kind}]", "", finished=True) for kind in ("first", "second")]
    text = shown_live(monkeypatch, 60, *ends)
    lines = [line[line.index("✓") :] for line in text.replace("\r", "\n").splitlines() if "✓" in line]
    assert ["[first]" in line for line in lines] == [True, False]
    assert ["[second]" in line for line in lines] == [False, True]
    assert all(cell_len(line) <= 60 for line in lines)


def test_how_all_gets_on_is_shown_and_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Update("", "1 of 2 scenarios, 1 failed", done=0.5)
    text = shown_live(monkeypatch, 100, whole, Update("test_a", "", finished=True))
    assert "1 of 2 scenarios, 1 failed" in text
    assert "50%" in text
    left = [line for line in text.replace("\r", "\n").splitlines() if "✓" in line or "!" in line]
    assert len(left) == 1
    assert "test_a" in left[0]


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_summary_fits_and_says_everything(
    columns: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    show(console(stream), verdict)
    text = stream.getvalue()
    assert max(map(cell_len, text.splitlines())) <= columns
    for said in (
        "84 MiB over 4 live updates",
        "TCG: ",
        "line two",
        "build 4:03 min",
        "1 passed",
        "1 skipped",
    ):
        assert said in " ".join(text.split()), said
    assert "\x1b[" not in text.replace("\x1b[31m", "")


def test_colours_follow_the_terminal_no_color_and_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def painted(stream: io.StringIO, color: bool | None) -> bool:
        console(stream, color=color).print("x", style="red")
        return "\x1b[" in stream.getvalue()

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted(Tty(), None)
    assert not painted(io.StringIO(), None)
    assert painted(io.StringIO(), True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not painted(Tty(), None)
    assert painted(Tty(), True)
    assert not painted(Tty(), False)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (99.99, "1:40 min"), (3723, "1:02:03 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (4096, "4 KiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said


def test_places_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert words.place(Path("/home/me/runs")) == "~/runs"
    assert words.place(Path("/srv/runs")) == "/srv/runs"
