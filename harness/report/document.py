# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdict -> result.json, in the schema that docs/result-schema.md describes. Pure.

Additions keep SCHEMA_VERSION; whatever would break a reader raises it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from harness import __version__
from harness.case import (
    AcceleratorChoice,
    Case,
    Finding,
    Ingredients,
    Kernel,
    LiveUpdate,
    MachineSpec,
    Outcome,
    Phase,
    ScenarioResult,
    Span,
    Verdict,
)
from harness.report.directory import began

SCHEMA_VERSION = 1

Document = dict[str, Any]


def document(case: Case, verdict: Verdict) -> Document:
    """The whole of result.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "harness_version": __version__,
        "began": began(verdict.directory).isoformat(),
        "directory": str(verdict.directory),
        "outcome": verdict.outcome.value,
        "stage": verdict.stage.value,
        "reason": verdict.reason,
        "hint": verdict.hint,
        "detail": verdict.detail,
        "case": _case(case),
        "kernel": _kernel(verdict.kernel, "kernel.config"),
        "next_kernel": _kernel(verdict.next_kernel, "next-kernel.config"),
        "environment": asdict(verdict.environment) if verdict.environment else None,
        "accelerator": _accelerator(verdict.choice),
        "phases": [_phase(phase) for phase in verdict.phases],
        "scenarios": [_scenario(result) for result in verdict.scenarios],
        "totals": _totals(verdict),
    }


def _case(case: Case) -> Document:
    return {
        "kernel": case.kernel.name,
        "next_kernel": case.next_kernel.name,
        "recipe": case.recipe,
        "scenarios": list(case.scenarios) or [test.title for test in case.selftests],
        "seed": case.seed,
        "machine": _machine(case.machine),
    }


def _machine(spec: MachineSpec) -> Document:
    return {
        "memory_bytes": spec.memory,
        "cpus": spec.cpus,
        "numa_nodes": spec.numa_nodes,
        "accelerator": spec.accelerator.value,
        "kernel_parameters": list(spec.kernel_parameters),
    }


def _kernel(kernel: Kernel | None, config: str) -> Document | None:
    if kernel is None:
        return None
    return {
        "name": kernel.name,
        "release": kernel.release,
        "digest": kernel.digest,
        "patches": list(kernel.subjects),
        "abi": dict(kernel.abi),
        "config": config,
        "ingredients": _ingredients(kernel.ingredients),
    }


def _ingredients(made_of: Ingredients | None) -> Document | None:
    return asdict(made_of) if made_of else None


def _accelerator(choice: AcceleratorChoice | None) -> Document | None:
    return {"name": choice.accelerator.value, "reason": choice.reason} if choice else None


def _phase(phase: Phase) -> Document:
    return {
        "name": phase.name,
        "start_seconds": round(phase.start, 3),
        "seconds": round(phase.seconds, 3),
    }


def _update(update: LiveUpdate) -> Document:
    return {
        "from_release": update.from_release,
        "to_release": update.to_release,
        "from_boot_id": update.from_boot_id,
        "to_boot_id": update.to_boot_id,
        "kexec_count": update.kexec_count,
        "seconds": round(update.seconds, 3),
        "spans": [_span(span) for span in update.spans],
    }


def _span(span: Span) -> Document:
    return {
        "name": span.name,
        "start_seconds": round(span.start, 6),
        "seconds": round(span.seconds, 6),
        "within_seconds": round(span.within, 6),
        "known": span.known,
    }


def _scenario(result: ScenarioResult) -> Document:
    return {
        "name": result.name,
        "outcome": result.outcome.value,
        "stage": result.stage.value,
        "reason": result.reason,
        "detail": result.detail,
        "seconds": round(result.seconds, 3),
        "rules": list(result.rules),
        "phases": [_phase(phase) for phase in result.phases],
        "live_updates": [_update(update) for update in result.updates],
        "bytes_verified": result.bytes_verified,
        "measurements": dict(result.measurements),
        "subtests": [
            {"name": one.name, "outcome": one.outcome.value, "reason": one.reason} for one in result.subtests
        ],
        "findings": [_finding(finding) for finding in result.findings],
        "traces": result.traces,
    }


def _finding(finding: Finding) -> Document:
    return {
        "kind": finding.kind,
        "title": finding.title,
        "kernel": finding.kernel,
        "at_seconds": round(finding.at, 6),
        "line_number": finding.number,
        "before": list(finding.before),
        "lines": list(finding.lines),
        "function": finding.function,
        "place": finding.place,
        "count": finding.count,
    }


def _totals(verdict: Verdict) -> Document:
    counts = Counter(result.outcome for result in verdict.scenarios)
    return {
        "passed": counts[Outcome.PASS],
        "failed": counts[Outcome.FAIL],
        "skipped": counts[Outcome.SKIP],
        "broken": counts[Outcome.BROKEN],
        "bytes_verified": sum(result.bytes_verified for result in verdict.scenarios),
        "live_updates": sum(len(result.updates) for result in verdict.scenarios),
    }
