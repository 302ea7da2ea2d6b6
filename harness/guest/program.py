# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the host under test: started by the agent, ended at a deadline, read from while they run."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.guest.child import Process, described
from harness.guest.errors import RemoteError
from harness.guest.session import Session

STEP_SECONDS = 0.5
# Who has been silent for so long and holds what he was to get ready stays on purpose.
QUIET_SECONDS = 3.0
OUTPUT_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a program. status: as waitpid gives it, None where it had no end within `limit` seconds.

    stays: it goes on, because it holds what it was to hold. output: stdout and stderr as they came.
    """

    status: int | None
    output: str
    seconds: float
    limit: float
    stays: bool = False

    @property
    def code(self) -> int | None:
        """The exit status; None for one that was killed or did not end."""
        return None if self.status is None or os.WIFSIGNALED(self.status) else os.WEXITSTATUS(self.status)

    @property
    def text(self) -> str:
        """Its end in words: "status 1", "killed by SIGSEGV", "no end within 45 s"."""
        return f"no end within {self.limit:.0f} s" if self.status is None else described(self.status)


def run(
    session: Session,
    argv: Sequence[str],
    seconds: float,
    on_line: Callable[[str], None] = lambda line: None,
    *,
    may_hold: str = "",
) -> Ended:
    """Run a program in the host to its end; one that has none within so many seconds (scaled) is killed.

    may_hold: a part of a file's link in /proc; a program that falls silent with such a file open may stay.
    Raises CrashError where the host dies meanwhile.
    """
    process = Process(session, session.call("process.execute", argv=list(argv))["handle"])
    limit = seconds * session.time_scale
    began = heard = time.monotonic()
    output, status, stays = "", None, False
    while status is None and not stays and time.monotonic() - began < limit:
        if data := _receive(process, STEP_SECONDS):
            heard = time.monotonic()
            output = (output + data)[-OUTPUT_LIMIT:]
            on_line(data.rstrip().rpartition("\n")[2])
        status = process.wait(0)
        quiet = time.monotonic() - heard > QUIET_SECONDS * session.time_scale
        stays = bool(may_hold and quiet and session.call("process.holds", process=process, link=may_hold))
    if status is None and not stays:
        session.call("process.end", process=process)
    while rest := _receive(process, 0):
        output = (output + rest)[-OUTPUT_LIMIT:]
    return Ended(status, output, time.monotonic() - began, limit, stays)


def _receive(process: Process, seconds: float) -> str:
    """What the program has said, "" where that was nothing, or where it has closed its output."""
    try:
        data: bytes = process.session.call("process.receive", process=process, seconds=seconds)
    except RemoteError as error:
        if error.errno != errno.EPIPE:
            raise
        time.sleep(0.02)  # it ends now, or lives on without an output
        return ""
    return data.decode(errors="replace")
