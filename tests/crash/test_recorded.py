# SPDX-License-Identifier: GPL-2.0-or-later
"""Each recorded console is found to say what stands at its top; docs/crashes.md says how they were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.record import LOGS, load, told

RECORDED = sorted(LOGS.glob("*/*.log"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_console_says_this(path: Path) -> None:
    log = load(path)
    assert [told(one) for one in log.found()] == list(log.expected)


def test_there_are_many_and_each_expects_something() -> None:
    assert len(RECORDED) >= 40
    assert all(load(path).expected for path in RECORDED)
