# SPDX-License-Identifier: GPL-2.0-or-later
"""Several runs become one breakdown: medians of the steps that all have, and the slowest initcalls."""

from __future__ import annotations

import io

import pytest

from harness.breakdown import Breakdown, Start, summed
from harness.case import Span
from harness.guest.startup import Initcall
from harness.report import breakdown as report
from harness.report.terminal import console


def start(initcalls: float, *, firmware: float = 0.1, within: float = 0.002) -> Start:
    lengths = {"QEMU": 0.05, "firmware": firmware, "initcalls": initcalls}
    steps = tuple(Span(name, 1.0, seconds, within, "how") for name, seconds in lengths.items() if seconds)
    calls = (Initcall("acpi_init", 0.1, initcalls / 4), Initcall("svm_init", 0.2, initcalls / 2))
    return Start(steps, calls)


def test_steps_are_medians_with_their_spread_and_the_worst_of_their_ends() -> None:
    part = summed("power-on", [start(0.4), start(0.9, within=0.004), start(0.5)], 10)
    assert part.total == pytest.approx(0.65)
    *_, initcalls = part.steps
    assert (initcalls.median, initcalls.least, initcalls.most) == (0.5, 0.4, 0.9)
    assert initcalls.within == 0.004
    assert [(call.name, call.median) for call in part.initcalls] == [("svm_init", 0.25), ("acpi_init", 0.125)]
    assert [call.name for call in summed("power-on", [start(0.4)], 1).initcalls] == ["svm_init"]


def test_step_that_one_run_did_not_see_is_left_out() -> None:
    part = summed("power-on", [start(0.4), start(0.4, firmware=0.0)], 10)
    assert [step.name for step in part.steps] == ["QEMU", "initcalls"]


@pytest.mark.parametrize("columns", [60, 100])
def test_table_fits_and_has_all(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    part = summed("power-on to agent", [start(0.4)], 10)
    report.show(console(stream, color=False), Breakdown("2 CPUs, TCG, Linux 7.3.4", 1, (part,)))
    text = stream.getvalue()
    for word in ("power-on to agent", "firmware", "100", "400", "svm_init", "200", "±", "one run"):
        assert word in text
    assert max(map(len, text.splitlines())) <= columns
