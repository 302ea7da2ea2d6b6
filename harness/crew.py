# SPDX-License-Identifier: GPL-2.0-or-later
"""Has scenarios run by processes of their own (work.py), and passes on what these tell.

Processes, because a scenario may do anything to its interpreter, and because ending a process is the one
sure way to stop it.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness import command
from harness.case import Bench
from harness.errors import DeadlineError
from harness.exchange import Collected, Event, Kept, Orders, Uncollected, encode, read_event
from harness.hand import Hand, ready
from harness.layout import Layout

if TYPE_CHECKING:
    from harness.shell.desk import Desk

# No scenario is silent for longer: each of its steps has a shorter deadline of its own.
SILENCE_SECONDS = 300.0
END_SECONDS = 30.0
LOG, BENCH = "pytest.log", "bench.json"


@contextmanager
def hired(
    nodes: tuple[str, ...],
    layout: Layout,
    directory: Path,
    began: float,
    desk: Desk | None = None,
    hand: Hand | None = None,
) -> Iterator[Crew]:
    """Processes for what pytest finds for the nodes; they are gone when the block is left.

    directory: the run's; what pytest prints goes to pytest.log in it. began: the attempt's start on the
    monotonic clock. desk: where somebody sits who wants a prompt at a failure. hand: the first of them, if
    there is one already; else it starts at once.
    """
    orders = Orders(directory / BENCH, layout.scenarios, nodes, began)
    with ExitStack() as stack:
        log = stack.enter_context((directory / LOG).open("wb"))
        common = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        crew = Crew(stack, layout, orders, log, common, desk)
        crew.hands.append(hand or stack.enter_context(ready(layout)))
        try:
            yield crew
        finally:
            command.end([hand.process for hand in crew.hands])


@dataclass(slots=True)
class _Told:
    """What a process tells: where its events come from."""

    hand: Hand
    source: IO[bytes]
    pending: bytes = b""

    def events(self) -> list[Event] | None:
        """What it told since; None when it will not tell any more."""
        chunk = os.read(self.source.fileno(), 1 << 16)
        if not chunk:
            return None
        *whole, self.pending = (self.pending + chunk).split(b"\n")
        return [read_event(line.decode()) for line in whole]


@dataclass(slots=True)
class Crew:
    """Processes that share scenarios; the stack ends them.

    orders: the same for all, but that one alone is eager. common: the file that all of them have.
    """

    stack: ExitStack
    layout: Layout
    orders: Orders
    log: IO[bytes]
    common: IO[bytes]
    desk: Desk | None
    hands: list[Hand] = field(default_factory=list)
    told: list[_Told] = field(default_factory=list)

    def begin(self, bench: Bench) -> None:
        """Have the first process collect its scenarios and run them."""
        self.orders.bench.write_text(json.dumps(encode(bench), indent=2) + "\n", encoding="utf-8")
        (first,) = self.hands
        self._order(first, replace(self.orders, eager=True), self.desk)

    def follow(self, bench: Bench, on_event: Callable[[Event], None]) -> int:
        """Pass on what they tell until all have ended, and return pytest's exit status.

        As many processes as the bench has jobs share the scenarios; the first one's word counts for what
        there is. Raises DeadlineError when all fall silent.
        """
        (first,) = self.hands
        for told, event in self._events(SILENCE_SECONDS * bench.time_scale):
            if told.hand is first or not isinstance(event, Collected | Uncollected):
                on_event(event)
            if told.hand is first and isinstance(event, Collected):
                for _ in range(1, min(bench.jobs, len(event.names))):
                    self.hands.append(self.stack.enter_context(ready(self.layout)))
                    self._order(self.hands[-1], self.orders)
            if self.desk and isinstance(event, Kept):
                self.desk.serve(told.source.fileno())
        return max(_wait(hand.process) for hand in self.hands)

    def _order(self, hand: Hand, orders: Orders, desk: Desk | None = None) -> None:
        source, sink = os.pipe()
        self.told.append(_Told(hand, self.stack.enter_context(os.fdopen(source, "rb", buffering=0))))
        with os.fdopen(sink, "wb", buffering=0):
            descriptors = [self.log.fileno(), sink, self.common.fileno()]
            hand.order(json.dumps(encode(orders)), descriptors + ([desk.descriptor] if desk else []))

    def _events(self, patience: float) -> Iterator[tuple[_Told, Event]]:
        """All events as they come, until no process will tell any more."""
        with selectors.DefaultSelector() as selector:
            ended: list[_Told] = []
            while len(ended) < len(self.told):
                for told in self.told[len(selector.get_map()) + len(ended) :]:
                    selector.register(told.source, selectors.EVENT_READ, told)
                keys = [key for key, _ in selector.select(patience)]
                if not keys:
                    raise DeadlineError(f"the scenarios' process said nothing for {patience:.0f} seconds")
                for key in keys:
                    told = key.data
                    events = told.events()
                    if events is None:
                        selector.unregister(told.source)
                        ended.append(told)
                    yield from ((told, event) for event in events or ())


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"the scenarios' process did not end within {END_SECONDS:.0f} seconds") from None
