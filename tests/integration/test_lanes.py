# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue on every kernel that shows something which the default one cannot. Takes hours.

A lane passes when each of its scenarios does, or says why this kernel cannot show what it looks at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.integration.conftest import Ran, build

LANE_SECONDS = 4 * 3600.0
LANES = {
    "everything": ("--all", "all"),
    "every-check": ("--kernel", "linux-7.3-debug", "--all", "all"),
    "failing-allocations": ("--kernel", "linux-7.3-faults", "--all", "faults"),
    "modules": ("--kernel", "linux-7.3-modules", "S3"),
    "bad-memory": ("--kernel", "linux-7.3-memory-failure", "P6"),
    "another-handler": ("--next-kernel", "linux-7.3-other-abi", "R7"),
    "no-handler": ("--next-kernel", "linux-7.3-without-option", "R7"),
    "older": ("--kernel", "linux-7.2", "all"),
    "older-to-newer": ("--kernel", "linux-7.2", "--next-kernel", "linux-7.3", "all"),
}


@pytest.mark.long
@pytest.mark.parametrize("words", LANES.values(), ids=LANES)
def test_every_scenario_of_the_lane_passes(luh_run: Callable[..., Ran], words: tuple[str, ...]) -> None:
    for option, name in itertools.pairwise(words):
        if option in ("--kernel", "--next-kernel"):
            build("--kernel", name)
    ran = luh_run(*words, seconds=LANE_SECONDS)
    assert ran.status == 0, ran.output
    assert ran.result["totals"]["passed"] > 0
