# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that was started when its image was made, and goes on in the guest (harness/image/frozen.py)."""

from __future__ import annotations

import os
import sys
import time

from .__main__ import WAITS_ON, await_start, import_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # as in vcpu.py

# What the interpreter does about signals when it starts is not in its memory (Python/pylifecycle.c).
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

# The program that another one of its kind is started with; "" in an agent that was started in the guest.
program = ""


def freeze(folder: str, argv: list[str], own: int, environment: dict[str, str], thaw: str) -> list[str]:
    """Be kept in a file; what is done after that is done in the guest. Returns the agent's arguments there.

    folder: where the guest has the agent's package. argv, environment: how the guest would start an agent;
    the last `own` words of argv are the agent's. thaw: the program that goes on with the file. What waits
    on WAITS_ON there is the end of init's mounts, or a byte of the agent that started this one, to be
    spoken with over it.
    """
    global program
    import gc

    import_all()
    _settle(folder, argv, own, environment)
    program = thaw
    gc.collect()
    gc.freeze()
    spoken = await_start()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    vars(sys.modules[__package__])["ENTERED"] = time.clock_gettime(time.CLOCK_BOOTTIME)
    return ["--stream", str(WAITS_ON)] if spoken else sys.argv[1:]


def _settle(folder: str, argv: list[str], own: int, environment: dict[str, str]) -> None:
    """Be what the guest's interpreter would be: where its modules are, and how it was started."""
    sys.path[0] = folder
    sys.path_importer_cache.clear()
    sys.modules[__package__].__path__ = [f"{folder}/{__package__}"]
    sys.executable, sys.orig_argv[:] = argv[0], argv
    sys.argv[1:] = argv[len(argv) - own :]
    os.environ.clear()
    os.environ.update(environment)
