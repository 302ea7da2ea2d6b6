# SPDX-License-Identifier: GPL-2.0-or-later
"""The same problem is told once, however many scenarios and kernels met it."""

from __future__ import annotations

from harness.case import Finding, Outcome, ScenarioResult
from harness.report.findings import grouped


def finding(title: str, kernel: int, count: int = 1) -> Finding:
    return Finding("warning", title, kernel, at=1.0, number=7, count=count)


def test_a_title_is_one_group_with_its_kernels_and_scenarios() -> None:
    results = (
        ScenarioResult("t.py::test_a[x]", Outcome.FAIL, 1.0, findings=(finding("b", 0), finding("a", 1, 3))),
        ScenarioResult("t.py::test_c", Outcome.PASS, 1.0),
        ScenarioResult("t.py::test_d", Outcome.FAIL, 1.0, findings=(finding("a", 0), finding("a", 1))),
    )
    first, second = grouped(results)
    assert (first.first.title, first.count, first.scenarios) == ("b", 1, ("test_a[x]",))
    assert (second.first.title, second.kernels, second.count) == ("a", (0, 1), 5)
    assert second.scenarios == ("test_a[x]", "test_d")
    assert second.where == "the first kernel, after kexec 1"
