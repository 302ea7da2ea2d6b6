# SPDX-License-Identifier: GPL-2.0-or-later
"""The values between an attempt and its pytest child survive the way through JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.case import (
    Accelerator,
    AcceleratorChoice,
    Bench,
    Image,
    Kernel,
    LiveUpdate,
    MachineSpec,
    Outcome,
    Phase,
    ScenarioResult,
    Verdict,
)
from harness.exchange import decode, encode

KERNEL = Kernel("k", "d", "7.3.4", Path("/v"), Path("/b"), Path("/c"), ("one", "two"))
BENCH = Bench(
    KERNEL,
    KERNEL,
    Image("i", "d", Path("/i")),
    MachineSpec(kernel_parameters=("a=b",)),
    AcceleratorChoice(Accelerator.TCG, "no KVM"),
    Path("/run"),
)
RESULT = ScenarioResult(
    "test_a",
    Outcome.FAIL,
    1.5,
    phases=(Phase("boot", 0.0, 1.0),),
    updates=(LiveUpdate("7.3.4", "7.3.4", "a", "b", 1, 1.9),),
    measurements=(("preserve_ms", 1.5),),
)


@pytest.mark.parametrize(
    "value", [BENCH, RESULT, Verdict(Outcome.FAIL, "why", Path("/r"), scenarios=(RESULT,), kernel=KERNEL)]
)
def test_round_trip_through_json(value: object) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        encode({1, 2})
