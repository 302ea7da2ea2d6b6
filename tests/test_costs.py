# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements become medians, ratios to a memfd, and goals that are met or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import costs
from harness.case import (
    Accelerator,
    AcceleratorChoice,
    Attempt,
    Case,
    GiB,
    Kernel,
    KernelDefinition,
    MiB,
    Outcome,
    ScenarioResult,
    Verdict,
)
from harness.errors import InfraError, UsageError

KERNEL = KernelDefinition("mine", (), (), ())


def result(shape: str, **values: float) -> ScenarioResult:
    """Three repetitions; names as guest_memfd__preserve."""
    measurements = tuple(
        (f"{name.replace('__', '.')}.{number}_{'bytes' if 'metadata' in name else 'ms'}", value + number - 1)
        for name, value in values.items()
        for number in (2, 1, 0)
    )
    return ScenarioResult(
        f"measure_preserve.py::test_cost[{shape}]", Outcome.PASS, 1.0, measurements=measurements
    )


def attempt_that_gives(*results: ScenarioResult, asked: list[Case] | None = None) -> Attempt:
    kernel = Kernel("mine", "digest", "7.3.4", Path("v"), Path("b"), Path("c"), ())
    choice = AcceleratorChoice(Accelerator.TCG, "a test")

    def attempt(case: Case) -> Verdict:
        if asked is not None:
            asked.append(case)
        return Verdict(
            Outcome.PASS,
            "why",
            Path("run"),
            scenarios=results,
            kernel=kernel,
            next_kernel=kernel,
            choice=choice,
        )

    return attempt


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(costs.REPETITIONS, "1")


def test_shapes_have_the_pages_that_their_names_say() -> None:
    shapes = {shape.name: shape for shape in costs.SHAPES}
    assert len(shapes) == len(costs.SHAPES)
    half, sparse = shapes["half-16M"], shapes["sparse-64G"]
    assert (half.count, half.last, half.packed.size) == (2048, 4094, 8 * MiB)
    assert (sparse.count, sparse.last * costs.PAGE, sparse.packed.size) == (16, 60 * GiB, 16 * costs.PAGE)


def test_figures_are_medians_beside_the_memfds() -> None:
    (row,) = costs.rows_of(result("contiguous-256M", guest_memfd__preserve=10.0, memfd__preserve=40.0))
    assert (row.pattern, row.size, row.figure, row.unit) == ("contiguous", 256 * MiB, "preserve", "ms")
    assert (row.guest_memfd, row.memfd, row.ratio) == (10.0, 40.0, 0.25)
    assert row.guest_memfd_values == (11.0, 10.0, 9.0)
    assert row.goal == pytest.approx(1 / 3)


def test_guest_is_compared_with_memfds_retrieve() -> None:
    rows = costs.rows_of(result("contiguous-1G", guest_memfd__to_guest=20.0, memfd__retrieve=400.0))
    (row,) = rows
    assert (row.figure, row.ratio, row.goal) == ("guest", 0.05, 0.1)


def test_nothing_is_divided_by_nothing() -> None:
    (row,) = costs.rows_of(result("sparse-1G", guest_memfd__metadata=8192.0, memfd__metadata=0.0))
    assert (row.unit, row.ratio) == ("bytes", None)


def test_goals_say_which_ratios_they_judge() -> None:
    rows = [
        *costs.rows_of(result("contiguous-16M", guest_memfd__preserve=10.0, memfd__preserve=40.0)),
        *costs.rows_of(result("contiguous-1G", guest_memfd__preserve=20.0, memfd__preserve=40.0)),
        *costs.rows_of(result("half-1G", guest_memfd__preserve=30.0, memfd__preserve=40.0)),
        *costs.rows_of(result("sparse-1G", guest_memfd__preserve=10.0, memfd__preserve=10.0)),
        *costs.rows_of(result("sparse-64G", guest_memfd__preserve=11.0, memfd__preserve=10.0)),
    ]
    third, same, sparse = costs.goals_of(rows)
    assert (third.ratios, third.met) == ((0.25, 0.5), False)
    assert (same.ratios, same.met) == ((0.75,), True)
    assert (sparse.ratios, sparse.met) == ((1.1,), True)


def test_shapes_that_were_skipped_are_named() -> None:
    measured = result("contiguous-16M", guest_memfd__preserve=10.0, memfd__preserve=40.0)
    skipped = replace(result("contiguous-4G"), outcome=Outcome.SKIP, reason="too little memory")
    found = costs.measure(attempt_that_gives(measured, skipped), KERNEL, "minimal", 4 * GiB, 7)
    assert found.unmeasured == (("measure_preserve.py::test_cost[contiguous-4G]", "too little memory"),)
    assert len(found.rows) == 1
    assert found.repetitions == 7
    assert "TCG, Linux 7.3.4 (mine)" in found.machine


def test_largest_is_about_pages_not_about_size() -> None:
    asked: list[Case] = []
    measured = result("contiguous-16M", guest_memfd__preserve=10.0, memfd__preserve=40.0)
    costs.measure(attempt_that_gives(measured, asked=asked), KERNEL, "minimal", 256 * MiB, 1)
    shapes = [name.partition("[")[2].rstrip("]") for name in asked[0].scenarios]
    assert shapes == [
        *("contiguous-16M", "contiguous-256M", "half-16M", "half-256M", "scattered-16M", "scattered-256M"),
        *("sparse-1G", "sparse-64G"),
    ]


def test_too_small_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no shape is that small"):
        costs.measure(attempt_that_gives(), KERNEL, "minimal", 1 * MiB, 1)


def test_no_figure_at_all_is_an_error_with_the_verdicts_reason() -> None:
    with pytest.raises(InfraError, match="nothing was measured: why"):
        costs.measure(attempt_that_gives(), KERNEL, "minimal", 16 * MiB, 1)
