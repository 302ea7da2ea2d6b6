# SPDX-License-Identifier: GPL-2.0-or-later
"""Room for machines that run beside each other, shared by the processes of one run.

A slot is a lock on a byte of a file that the processes inherit (fcntl(2)), so that the kernel gives back
what a process held that died.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from harness.deadline import Deadline

POLL_SECONDS = 0.02
# What QEMU and the scenario's process take beside the machine's own memory.
OVERHEAD = 256 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """What a machine has for others: CPUs, bytes of memory that are available, and what it does already.

    load: as getloadavg(3) has it, for the last minute.
    """

    cpus: int
    available: int
    load: float

    def fitting(self, memory: int) -> int:
        """How many machines with so many bytes of memory can run beside each other, at least one."""
        return max(1, min(self.cpus, self.available // (memory + OVERHEAD)))

    def crowding(self, machines: int, cpus: int) -> float:
        """How much slower than alone a machine with that many CPUs may be beside the others, and beside
        whatever else goes on; at least 1."""
        return max(1.0, (self.load + machines * cpus) / self.cpus)


def here() -> Room:
    """The room on this machine."""
    available = available_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
    return Room(len(os.sched_getaffinity(0)), available, os.getloadavg()[0])


def available_memory(text: str) -> int:
    """In bytes, of what /proc/meminfo says."""
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots 0 to count - 1 of a file; who takes some of them holds the byte after them meanwhile, so that
    two never wait for each other's."""

    file: int
    count: int

    @contextmanager
    def taken(self, wanted: int, deadline: Deadline) -> Iterator[None]:
        """Hold that many slots (all, where there are not so many) for the length of the block."""
        mine: list[int] = []
        try:
            self._wait(self.count, deadline)
            while len(mine) < min(wanted, self.count):
                mine.append(self._wait_for_any(mine, deadline))
            self._release(self.count)
            yield
        finally:
            for slot in (*mine, self.count):
                self._release(slot)

    def _wait_for_any(self, but: list[int], deadline: Deadline) -> int:
        while True:
            for slot in range(self.count):
                if slot not in but and self._take(slot):
                    return slot
            deadline.check()
            sleep(POLL_SECONDS)

    def _wait(self, slot: int, deadline: Deadline) -> None:
        while not self._take(slot):
            deadline.check()
            sleep(POLL_SECONDS)

    def _take(self, slot: int) -> bool:
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            return True
        return False

    def _release(self, slot: int) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, slot)
