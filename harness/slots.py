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


def fitting(memory: int) -> int:
    """How many machines with so many bytes of memory this one can run beside each other, at least one."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return max(1, min(len(os.sched_getaffinity(0)), available // (memory + OVERHEAD)))


def crowding(machines: int, cpus: int) -> float:
    """How much slower than alone a machine with that many CPUs may be beside the others, and beside whatever
    else this one does now; at least 1."""
    wanted = os.getloadavg()[0] + machines * cpus
    return max(1.0, wanted / len(os.sched_getaffinity(0)))


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
