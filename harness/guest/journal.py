# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened in the boots of one machine, as frozen entries in their order: the material of reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.case import LiveUpdate, Phase


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of the agent. start: on the monotonic clock; seconds: as seen from here.

    remote_seconds: what the agent itself took; 0.0 where no reply came. errno: 0 where it succeeded.
    boot: the id of the boot that it was asked of. began: on the agent's own monotonic clock; 0.0 where it
    does not tell.
    """

    operation: str
    start: float
    seconds: float
    remote_seconds: float
    errno: int
    boot: str = ""
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Checked:
    """A range of memory that was found right. verifier: "L1" or "L2"; updated: after a live update."""

    verifier: str
    boot_id: str
    handle: int
    offset: int
    length: int
    updated: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure that a scenario recorded; its name ends with its unit ("preserve_ms")."""

    name: str
    value: float


Entry = Call | Phase | Checked | Measurement | LiveUpdate


class Journal:
    """The entries so far; only added to. on_entry is told of each as it comes.

    The start of a Phase in here is on the monotonic clock.
    """

    def __init__(self, on_entry: Callable[[Entry], None] = lambda entry: None) -> None:
        self._entries: list[Entry] = []
        self._on_entry = on_entry

    def record(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._on_entry(entry)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record how long the block takes, also when it fails."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.record(Phase(name, start, time.monotonic() - start))

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, Call))

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, Phase))

    @property
    def updates(self) -> tuple[LiveUpdate, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, LiveUpdate))

    @property
    def measurements(self) -> tuple[tuple[str, float], ...]:
        return tuple((entry.name, entry.value) for entry in self._entries if isinstance(entry, Measurement))

    @property
    def bytes_verified(self) -> int:
        """Bytes found right after a live update: each counts once for each boot and verifier."""
        ranges: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        for entry in self._entries:
            if isinstance(entry, Checked) and entry.updated:
                key = (entry.verifier, entry.boot_id, entry.handle)
                ranges.setdefault(key, []).append((entry.offset, entry.offset + entry.length))
        return sum(_covered(found) for found in ranges.values())


def _covered(ranges: list[tuple[int, int]]) -> int:
    """The length of the union of [start, end) ranges."""
    total = reached = 0
    for start, end in sorted(ranges):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
