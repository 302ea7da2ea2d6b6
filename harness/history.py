# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict and measurement of every night, in SQLite, and what of the last night is new.

A night is one matrix that was recorded; a track is what can be compared from night to night: cell, scenario
and accelerator (never across accelerators: emulation is ten times slower). New is

- a failure of a track that did not fail in the last good night, nor is known to be flaky;
- a slowdown: a figure that is far above the track's last runs, by the median and the median absolute
deviation,
  which a few outliers among them do not move.

A night was good when nothing in it failed but known flakes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import TracebackType

from harness import __version__
from harness.case import Outcome
from harness.errors import InfraError
from harness.matrix.results import Result

SCHEMA = """
CREATE TABLE IF NOT EXISTS night (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, began TEXT NOT NULL, harness TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdict (
    night INTEGER NOT NULL REFERENCES night(id), cell TEXT NOT NULL, scenario TEXT NOT NULL,
    accelerator TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, seconds REAL NOT NULL,
    kernel TEXT NOT NULL, kernel_digest TEXT NOT NULL, next_kernel TEXT NOT NULL, next_digest TEXT NOT NULL,
    config TEXT NOT NULL, machine TEXT NOT NULL, directory TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS measurement (
    night INTEGER NOT NULL REFERENCES night(id), cell TEXT NOT NULL, scenario TEXT NOT NULL,
    accelerator TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL);
CREATE INDEX IF NOT EXISTS verdict_track ON verdict (cell, scenario, accelerator, night);
CREATE INDEX IF NOT EXISTS measurement_track ON measurement (cell, scenario, accelerator, name, night);
"""
VERSION = 1
WHOLE = ""  # the scenario of a verdict on a cell as a whole
BAD = (Outcome.FAIL, Outcome.BROKEN)
# How far back a track's runs are looked at.
WINDOW = 20
# A figure is judged from so many earlier ones on.
LEAST_RUNS = 5
# Iglewicz and Hoaglin (1993): a modified z-score above 3.5 is an outlier; 1.4826 makes the median absolute
# deviation of a normal distribution its standard deviation.
FAR, NORMAL = 3.5, 1.4826
# What is less than a tenth slower is no news, however still the figure stood before.
LEAST_SLOWDOWN = 1.1
SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Track:
    """What is compared from night to night. scenario: "" for a cell as a whole."""

    cell: str
    scenario: str
    accelerator: str

    @property
    def name(self) -> str:
        return " ".join(one for one in (self.cell, self.scenario, f"({self.accelerator})") if one)


@dataclass(frozen=True, slots=True)
class Failure:
    """A track that fails. since: when it began to. rate: how often a flaky one failed, of how many runs."""

    track: Track
    outcome: Outcome
    reason: str
    since: str
    failed: int
    runs: int


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A figure that became worse. usual: the median of the runs before; score: the modified z-score."""

    track: Track
    figure: str
    value: float
    usual: float
    score: float
    runs: int


@dataclass(frozen=True, slots=True)
class News:
    """The last night, against the last good one before it (None where there was none)."""

    night: str
    good: str | None
    verdicts: int
    failures: tuple[Failure, ...]
    known: tuple[Failure, ...]
    flakes: tuple[Failure, ...]
    mended: tuple[Track, ...]
    slowdowns: tuple[Slowdown, ...]

    @property
    def is_new(self) -> bool:
        return bool(self.failures or self.slowdowns)


def default_path() -> Path:
    """$LUH_HISTORY, or luh/history.sqlite in the user's state directory (XDG base directory
    specification).
    """
    named = os.environ.get("LUH_HISTORY")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(named).absolute() if named else state / "luh" / "history.sqlite"


class History:
    """The database; closed by leaving the block. Safe with several processes (SQLite locks)."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=30.0)
            self._base.executescript(SCHEMA)
            found = int(self._base.execute("PRAGMA user_version").fetchone()[0])
            self._base.execute(f"PRAGMA user_version = {VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise InfraError(
                f"cannot use the history {path}: {error}", hint="or name another: LUH_HISTORY"
            ) from error
        if found not in (0, VERSION):
            raise InfraError(f"the history {path} has version {found}, not {VERSION}")

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    # ---- what comes in -------------------------------------------------------------------------

    def record(self, name: str, results: Sequence[Result], began: datetime | None = None) -> int:
        """Keep a night's results, all or none of them; returns the night's number."""
        when = (began or datetime.now(UTC)).isoformat(timespec="seconds")
        with self._transaction():
            cursor = self._base.execute(
                "INSERT INTO night (name, began, harness) VALUES (?, ?, ?)", (name, when, __version__)
            )
            night = int(cursor.lastrowid or 0)
            for result in results:
                self._keep(night, result)
        return night

    def _keep(self, night: int, result: Result) -> None:
        verdict, machine = result.verdict, result.case.machine
        accelerator = str(verdict.choice.accelerator if verdict.choice else machine.accelerator)
        kernel, following = verdict.kernel, verdict.next_kernel
        about = (
            kernel.release if kernel else result.case.kernel.name,
            kernel.digest if kernel else "",
            following.release if following else result.case.next_kernel.name,
            following.digest if following else "",
            result.case.kernel.name,
            f"{machine.memory} bytes, {machine.cpus} CPUs, {machine.numa_nodes} nodes",
            str(verdict.directory),
        )
        rows = [(WHOLE, result.outcome, result.text, result.seconds)]
        if result.owed == "work":  # where a refusal is owed, a scenario's failure is what has to be
            rows += [(one.name, one.outcome, one.reason, one.seconds) for one in verdict.scenarios]
        for scenario, outcome, reason, seconds in rows:
            self._base.execute(
                f"INSERT INTO verdict VALUES ({','.join('?' * 14)})",
                (night, result.name, scenario, accelerator, outcome.value, reason, seconds, *about),
            )
        for one in verdict.scenarios if result.owed == "work" else ():
            figures = [*one.measurements, (SECONDS, one.seconds)] if one.outcome is Outcome.PASS else []
            figures += [(f"{phase.name} s", phase.seconds) for phase in one.phases if figures]
            for figure, value in dict(figures).items():
                row = (night, result.name, one.name, accelerator, figure, value)
                self._base.execute("INSERT INTO measurement VALUES (?, ?, ?, ?, ?, ?)", row)

    # ---- what is asked -------------------------------------------------------------------------

    def expected_seconds(self, cell: str) -> float | None:
        """The median of what a cell took the last times, or None where it never ran."""
        rows = self._base.execute(
            "SELECT seconds FROM verdict WHERE cell = ? AND scenario = '' ORDER BY night DESC LIMIT ?",
            (cell, WINDOW),
        ).fetchall()
        return median(float(row[0]) for row in rows) if rows else None

    def names(self) -> list[str]:
        return [str(row[0]) for row in self._base.execute("SELECT DISTINCT name FROM night ORDER BY name")]

    def news(self, name: str) -> News | None:
        """What is new in the last night of that name, or None where there is no night."""
        nights = self._base.execute(
            "SELECT id, began FROM night WHERE name = ? ORDER BY id DESC", (name,)
        ).fetchall()
        if not nights:
            return None
        when = {int(number): str(began) for number, began in nights}
        last = int(nights[0][0])
        tracks = self._tracks(last)
        runs = {track: self._runs(name, track) for track in tracks}
        good = next((night for night in when if night < last and self._was_good(name, night)), None)
        failing = [track for track in tracks if runs[track][0][1] in BAD]
        sorted_out = [self._failure(track, runs[track], when, good) for track in failing]
        return News(
            night=when[last],
            good=when[good] if good is not None else None,
            verdicts=len(tracks),
            failures=tuple(one for kind, one in sorted_out if kind == "new"),
            known=tuple(one for kind, one in sorted_out if kind == "known"),
            flakes=tuple(one for kind, one in sorted_out if kind == "flaky"),
            mended=tuple(one for one in tracks if _is_mended(runs[one])),
            slowdowns=tuple(self._slowdowns(name, last)),
        )

    def _tracks(self, night: int) -> list[Track]:
        rows = self._base.execute(
            "SELECT DISTINCT cell, scenario, accelerator FROM verdict WHERE night = ? ORDER BY rowid",
            (night,),
        )
        found = [Track(*map(str, row)) for row in rows]
        detailed = {track.cell for track in found if track.scenario}
        # A cell that ran is told by its scenarios.
        return [track for track in found if track.scenario or track.cell not in detailed]

    def _runs(self, name: str, track: Track) -> list[tuple[int, Outcome, str]]:
        """Night, outcome and reason of the track's last runs, the newest first."""
        rows = self._base.execute(
            "SELECT v.night, v.outcome, v.reason FROM verdict v JOIN night n ON n.id = v.night"
            " WHERE n.name = ? AND v.cell = ? AND v.scenario = ?"
            " AND v.accelerator = ? ORDER BY v.night DESC LIMIT ?",
            (name, track.cell, track.scenario, track.accelerator, WINDOW),
        )
        return [(int(night), Outcome(outcome), str(reason)) for night, outcome, reason in rows]

    def _was_good(self, name: str, night: int) -> bool:
        """Whether nothing failed in a night but what was flaky by then."""
        for track in self._tracks(night):
            runs = [run for run in self._runs(name, track) if run[0] <= night]
            if runs and runs[0][1] in BAD and not _is_flaky(runs):
                return False
        return True

    def _failure(
        self, track: Track, runs: list[tuple[int, Outcome, str]], when: dict[int, str], good: int | None
    ) -> tuple[str, Failure]:
        """What kind of failure it is: new, known or flaky."""
        streak = next((number for number, run in enumerate(runs) if run[1] not in BAD), len(runs))
        failed = sum(outcome in BAD for _, outcome, _ in runs)
        _, outcome, reason = runs[0]
        told = Failure(track, outcome, reason, when[runs[streak - 1][0]], failed, len(runs))
        if _is_flaky(runs):
            return "flaky", told
        before = [run for run in runs if good is not None and run[0] <= good]
        if good is None:
            before = runs[1:]
        return ("known" if before and before[0][1] in BAD else "new"), told

    def _slowdowns(self, name: str, night: int) -> Iterator[Slowdown]:
        rows = self._base.execute(
            "SELECT cell, scenario, accelerator, name, value FROM measurement WHERE night = ? ORDER BY rowid",
            (night,),
        ).fetchall()
        for cell, scenario, accelerator, figure, value in rows:
            earlier = self._base.execute(
                "SELECT m.value FROM measurement m JOIN night n ON n.id = m.night"
                " WHERE n.name = ? AND m.cell = ? AND m.scenario = ?"
                " AND m.accelerator = ? AND m.name = ? AND m.night < ?"
                " ORDER BY m.night DESC LIMIT ?",
                (name, cell, scenario, accelerator, figure, night, WINDOW),
            ).fetchall()
            before = [float(row[0]) for row in earlier]
            score = slowness(float(value), before)
            if score > FAR:
                track = Track(str(cell), str(scenario), str(accelerator))
                yield Slowdown(track, str(figure), float(value), median(before), score, len(before))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._base:
                yield
        except sqlite3.Error as error:
            raise InfraError(f"cannot write the history: {error}") from error


def slowness(value: float, before: Sequence[float]) -> float:
    """The modified z-score of a figure against those before it; 0.0 where it says nothing.

    Where the figures before hardly differ, a fiftieth of their median stands for their spread.
    """
    if len(before) < LEAST_RUNS:
        return 0.0
    usual = median(before)
    if usual <= 0.0 or value < usual * LEAST_SLOWDOWN:
        return 0.0
    spread = max(NORMAL * median(abs(one - usual) for one in before), usual / 50)
    return (value - usual) / spread


def _is_flaky(runs: Sequence[tuple[int, Outcome, str]]) -> bool:
    """Whether a track that fails now (the newest run comes first) failed before and recovered by itself."""
    outcomes = [outcome in BAD for _, outcome, _ in runs]
    changes = sum(one != other for one, other in pairwise(outcomes))
    return outcomes[0] and changes >= 2 and any(outcomes[1:])


def _is_mended(runs: Sequence[tuple[int, Outcome, str]]) -> bool:
    return len(runs) > 1 and runs[0][1] is Outcome.PASS and runs[1][1] in BAD
