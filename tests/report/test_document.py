# SPDX-License-Identifier: GPL-2.0-or-later
"""result.json is what its schema file says, and the schema says everything that is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness.report
from harness.case import Case, Outcome, Verdict
from harness.report.document import document

SCHEMA = json.loads((Path(harness.report.__file__).parent / "result.schema.json").read_text())
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def conform(data: object, schema: dict[str, Any], where: str) -> None:
    """The part of JSON Schema that our file uses."""
    if "$ref" in schema:
        return conform(data, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    assert data == schema.get("const", data), where
    assert data in schema.get("enum", [data]), where
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    assert not kinds or any(isinstance(data, TYPES[kind]) for kind in kinds), f"{where}: {data!r}"
    if isinstance(data, dict) and "properties" in schema:
        assert set(schema["required"]) == set(schema["properties"]) == set(data), where
        for name, item in data.items():
            conform(item, schema["properties"][name], f"{where}.{name}")
    if isinstance(data, list):
        for number, item in enumerate(data):
            conform(item, schema["items"], f"{where}[{number}]")
    return None


def test_whole_verdict_conforms(case: Case, verdict: Verdict) -> None:
    conform(json.loads(json.dumps(document(case, verdict))), SCHEMA, "result")


def test_attempt_that_ended_early_conforms(case: Case, tmp_path: Path) -> None:
    verdict = Verdict(
        Outcome.FAIL, "patch 3 does not apply", tmp_path / "20261121T022535Z-ab12", hint="rebase"
    )
    conform(json.loads(json.dumps(document(case, verdict))), SCHEMA, "result")


def test_a_wrong_document_would_be_noticed(case: Case, verdict: Verdict) -> None:
    wrong = {**document(case, verdict), "outcome": "FINE"}
    with pytest.raises(AssertionError):
        conform(wrong, SCHEMA, "result")


def test_figures(case: Case, verdict: Verdict) -> None:
    made = document(case, verdict)
    assert made["began"] == "2026-11-21T02:25:35+00:00"
    assert made["totals"]["passed"] == made["totals"]["broken"] == 1
    assert made["totals"]["live_updates"] == 4
    assert made["scenarios"][0]["traces"] == "test_basic.test_survives.vm,memory"
    assert made["kernel"]["patches"] == ["one", "two"]


def test_documentation_names_every_field(case: Case, verdict: Verdict) -> None:
    text = (Path(__file__).parents[2] / "docs" / "result-schema.md").read_text()
    made = document(case, replace(verdict, scenarios=verdict.scenarios[:1]))
    for name in [*made, *made["totals"], *made["scenarios"][0], *made["kernel"]]:
        assert f"`{name}`" in text or f"`{name}[]`" in text, name
