# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that can run scenarios (work.py), from its start to its orders.

Imports next to nothing, so that it can be started before all that has to be imported to know its orders.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from harness import command
from harness.layout import Layout

STDERR = 2
# What the user set for pytest elsewhere must not change what a scenario means.
ENVIRONMENT = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": ""}


@dataclass(frozen=True, slots=True)
class Hand:
    """The process, and the line on which it waits for its orders."""

    process: subprocess.Popen[bytes]
    line: socket.socket

    def order(self, orders: str, descriptors: Sequence[int]) -> None:
        """Give it its only orders, and copies of these descriptors (work.py says which)."""
        with self.line, suppress(BrokenPipeError, ConnectionResetError):  # it has said why it ended
            socket.send_fds(self.line, [orders.encode()], descriptors)


@contextmanager
def ready(layout: Layout) -> Iterator[Hand]:
    """A process that makes itself ready to run scenarios, and is gone when the block is left.

    That takes it as long as the stages take before it can have its orders, so it should be the first thing.
    """
    ours, theirs = socket.socketpair()
    with ours, ExitStack() as stack:
        with theirs:
            process = stack.enter_context(
                command.spawn(
                    (sys.executable, "-P", "-m", "harness.work", str(theirs.fileno())),
                    env={**ENVIRONMENT, "PYTHONPATH": str(layout.root)},
                    pass_fds=[theirs.fileno()],
                    # Until it has its orders, and a log with them.
                    stdout=STDERR,
                    stderr=STDERR,
                )
            )
        yield Hand(process, ours)
