# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines on the monotonic clock: every wait in the project is bounded by one."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, and what is awaited until then.

    Made once where a wait begins and handed down, so that nested waits share one budget.
    """

    at: float
    purpose: str

    @classmethod
    def after(cls, seconds: float, purpose: str, *, scale: float = 1.0) -> Deadline:
        """The deadline `seconds * scale` from now; `scale` makes room for TCG and debug kernels."""
        return cls(time.monotonic() + seconds * scale, purpose)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining == 0.0

    def check(self) -> float:
        """The seconds left, for use as a timeout; raises DeadlineError where none are."""
        if self.expired:
            raise DeadlineError(f"no end within the deadline: {self.purpose}")
        return self.remaining
