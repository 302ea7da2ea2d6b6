# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a kernel's start, from what a live update of Linux 7.3.4 left on the console and in logs."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.case import Span
from harness.guest.startup import Record, Witnesses, initcalls, spans, steady
from harness.guest.timeline import Clock, Seen

RECORDED = Path(__file__).parent / "recorded"
# Of the same live update, on the console's clock.
ORDER, LAST_LINE, HELLO = 0.288675, 0.308588, 4.301693
BEGUN = [
    Span("freeze, shutdown", ORDER, 0.0, 0.002, "the harness orders the kexec"),
    Span("purgatory, decompression", LAST_LINE, 0.0, 0.002, "the host reads the old kernel's last line"),
]


def recorded(name: str, form: str) -> list[tuple[float, str]]:
    lines = (RECORDED / name).read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(form, line) for line in lines]
    return [(float(match[1]), match[2]) for match in matches if match]


@pytest.fixture
def log() -> tuple[Record, ...]:
    return tuple(Record(at, text) for at, text in recorded("kexec-kernel.log", r"\[ *([\d.]+)\] (.*)"))


@pytest.fixture
def seen(log: tuple[Record, ...]) -> Witnesses:
    return Witnesses(
        lines=tuple(Seen(at, text) for at, text in recorded("kexec-console.log", r" *([\d.]+) \| (.*)")),
        log=log,
        log_clock=Clock(1.088525, 0.0017),
        process=1.49,
        python=2.43589,
        agent_clock=Clock(1.06944, 0.0013),
        hello=HELLO,
    )


def test_steps_follow_each_other_from_the_order_to_the_hello(seen: Witnesses) -> None:
    found = spans(BEGUN, seen)
    assert [(step.name, round(step.seconds, 2)) for step in found] == [
        ("freeze, shutdown", 0.02),
        ("purgatory, decompression", 0.51),
        ("early kernel", 0.47),
        ("initcalls", 0.98),
        ("root file system", 0.16),
        ("init", 0.14),
        ("agent's process", 0.95),
        ("agent", 0.80),
    ]
    for one, following in pairwise(found):
        assert one.start + one.seconds == pytest.approx(following.start)
    assert sum(step.seconds for step in found) == pytest.approx(HELLO - ORDER)


def test_each_start_says_how_far_off_it_can_be(seen: Witnesses) -> None:
    within = {step.name: step.within for step in spans(BEGUN, seen)}
    assert within["initcalls"] == 0.0017
    assert within["agent's process"] == pytest.approx(0.0113)  # a clock tick besides
    assert within["agent"] == 0.0013


def test_initcalls_take_what_the_kernels_clock_says_and_not_its_jiffies(log: tuple[Record, ...]) -> None:
    found = {call.name: call for call in initcalls(log)}
    assert found["svm_init"].seconds == pytest.approx(0.223158)
    # "returned 0 after 88 usecs", and after 8000 while there was no better clock.
    assert found["pci_mmcfg_late_insert_resources"].seconds == pytest.approx(0.000103)
    assert found["net_dev_init"].seconds == pytest.approx(0.011321)
    assert [call.at for call in found.values()] == sorted(call.at for call in found.values())


def test_what_was_said_before_the_clock_ran_evenly_is_on_no_clock(log: tuple[Record, ...]) -> None:
    assert log[6].text == "tsc: Detected 2440.218 MHz processor"
    assert steady(log)[0].text.startswith("clocksource: tsc-early:")
    assert steady(()) == ()


def test_initcall_that_was_not_seen_to_begin_or_to_return_has_no_length() -> None:
    log = [
        Record(1.0, "initcall early_one+0x0/0x10 returned 0 after 5 usecs"),
        Record(1.1, "calling  hanging_one+0x0/0x10 @ 1"),
    ]
    assert initcalls(log) == ()


def test_log_without_initcalls_leaves_its_steps_out(seen: Witnesses) -> None:
    silent = replace(seen, log=tuple(one for one in seen.log if "initcall" not in one.text))
    silent = replace(silent, log=tuple(one for one in silent.log if not one.text.startswith("calling")))
    names = [step.name for step in spans(BEGUN, silent)]
    assert names == [
        *("freeze, shutdown", "purgatory, decompression", "early kernel", "init", "agent's process", "agent")
    ]
