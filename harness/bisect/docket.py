# SPDX-License-Identifier: GPL-2.0-or-later
"""The candidates of a search as they are ruled on: remembered, shown while they run, and written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.bisect.judge import Answer, Judge, Ruling
from harness.bisect.odds import Tally
from harness.bisect.state import State
from harness.case import Case, Outcome, Progress, Update, Verdict
from harness.errors import HarnessError

LOG = "log"
OUTCOMES = {Answer.GOOD: Outcome.PASS, Answer.BAD: Outcome.FAIL, Answer.SKIP: Outcome.SKIP}


@dataclass(slots=True)
class Teller:
    """Shows a candidate as one line, whatever stages its attempts go through. `relay` is their Progress."""

    progress: Progress
    title: str = ""
    name: str = ""
    left: int = 0
    done: float | None = None
    seconds: float | None = None
    _runs: str = ""

    def begin(self, title: str, name: str, left: int, done: float | None, seconds: float | None) -> None:
        """left: how many steps follow this one; seconds: until the end of the search."""
        self.title, self.name, self.left, self.done, self.seconds = title, name, left, done, seconds
        self._runs = ""
        self._show("")

    def relay(self, update: Update) -> None:
        if not update.finished:
            self._show(f"{update.phase} {update.text}".strip())

    def on_run(self, tally: Tally, verdict: Verdict) -> None:
        self._runs = f"{tally.fails} of {tally.runs} failed, "

    def end(self, ruling: Ruling) -> None:
        text = f"{self.name}: {ruling.text}"
        self.progress(Update(self.title, text, finished=True, outcome=OUTCOMES[ruling.answer]))

    def fail(self, error: HarnessError) -> None:
        text = f"{self.name}: {error.message}"
        self.progress(Update(self.title, text, finished=True, outcome=Outcome.BROKEN))

    def _show(self, text: str) -> None:
        more = f"about {self.left} more after this, " if self.left else ""
        self.progress(
            Update(self.title, f"{self.name}: {more}{self._runs}{text}", done=self.done, left=self.seconds)
        )


@dataclass(slots=True)
class Docket:
    """Rules on candidates by key, once. counted: how many candidates were ruled on, and in how many runs."""

    judge: Judge
    state: State
    teller: Teller
    counted: int = 0
    runs: int = 0
    spent: list[float] = field(default_factory=list)

    def rule(
        self, key: str, title: str, name: str, cases: Callable[[], tuple[Case, ...]], left: int = 0
    ) -> Ruling:
        return self._once(key, title, name, left, lambda: self.judge.rule(cases()))

    def confirm_bad(self, key: str, title: str, name: str, cases: Callable[[], tuple[Case, ...]]) -> Ruling:
        return self._once(key, title, name, 0, lambda: self.judge.confirm_bad(cases()))

    def _once(self, key: str, title: str, name: str, left: int, make: Callable[[], Ruling]) -> Ruling:
        self.counted += 1
        done = self.counted / (self.counted + left + 1) if left else None
        self.teller.begin(title, name, left, done, self._expected(left))
        if ruling := self.state.rulings.get(key):
            self.judge.recall(ruling)
            self.spent.append(self.state.seconds[key])
        else:
            ruling = self._make(key, make)
        self.runs += ruling.tally.runs
        self.teller.end(ruling)
        self._log(title, name, ruling)
        return ruling

    def _make(self, key: str, make: Callable[[], Ruling]) -> Ruling:
        began = time.monotonic()
        try:
            ruling = make()
        except HarnessError as error:
            self.teller.fail(error)
            raise
        self.spent.append(time.monotonic() - began)
        self.state.record(key, ruling, self.spent[-1])
        return ruling

    def _expected(self, left: int) -> float | None:
        """The seconds until the end, from what candidates took so far."""
        return (left + 1) * sum(self.spent) / len(self.spent) if self.spent else None

    def _log(self, title: str, name: str, ruling: Ruling) -> None:
        note = f" ({ruling.note})" if ruling.note else ""
        with (self.state.directory / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{title}: {name}: {ruling.text}{note}\n")
