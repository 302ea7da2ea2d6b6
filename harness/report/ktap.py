# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdict -> KTAP version 1 (Documentation/dev-tools/ktap.rst). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.case import Outcome, ScenarioResult, Verdict


def ktap(verdict: Verdict) -> str:
    """The document. BROKEN is "not ok" with a diagnostic that says so: KTAP has no word for it."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    yield "KTAP version 1"
    if verdict.kernel and verdict.next_kernel:
        yield f"# kernels: {verdict.kernel.release} to {verdict.next_kernel.release}"
    if verdict.choice:
        yield f"# accelerator: {verdict.choice.accelerator}: {verdict.choice.reason}"
    results = verdict.scenarios or (
        ScenarioResult("attempt", verdict.outcome, 0.0, verdict.reason, verdict.detail),
    )
    yield f"1..{len(results)}"
    for number, result in enumerate(results, 1):
        yield from _result(number, result)


def _result(number: int, result: ScenarioResult) -> Iterator[str]:
    yield from (f"    {line}" for line in _subtests(result))
    reason = " ".join(result.reason.split())
    if result.outcome in (Outcome.FAIL, Outcome.BROKEN):
        yield f"# {result.outcome}: {reason}"
        yield from (f"# {line}" for line in result.detail.splitlines())
        yield f"not ok {number} {_name(result)}"
    elif result.outcome is Outcome.SKIP:
        yield f"ok {number} {_name(result)} # SKIP {reason}"
    else:
        yield f"ok {number} {_name(result)}"


def _subtests(result: ScenarioResult) -> Iterator[str]:
    """What a program reported of its parts, as a document inside the document."""
    if result.subtests:
        yield "KTAP version 1"
        yield f"# Subtest: {_name(result)}"
        yield f"1..{len(result.subtests)}"
    for number, one in enumerate(result.subtests, 1):
        ok = "not ok" if one.outcome is Outcome.FAIL else "ok"
        skip = f" # SKIP {' '.join(one.reason.split())}" if one.outcome is Outcome.SKIP else ""
        yield f"{ok} {number} {one.name.replace('#', '_')}{skip}"


def _name(result: ScenarioResult) -> str:
    return result.name.replace("#", "_")
