# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit, KTAP and the run directory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.case import Case, Outcome, Subtest, Verdict
from harness.errors import InfraError
from harness.kselftest.ktap import parse
from harness.report.directory import create
from harness.report.files import write
from harness.report.junit import junit
from harness.report.ktap import ktap


def test_junit_tells_failures_from_errors_and_skips(verdict: Verdict) -> None:
    (suite,) = ElementTree.fromstring(junit(verdict))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"], ["error"]]
    assert suite[0].get("name") == "test_survives[vm,memory]"
    assert "\x1b" not in (suite[1][0].text or "")


def test_ktap(verdict: Verdict) -> None:
    lines = ktap(verdict).splitlines()
    assert lines[0] == "KTAP version 1"
    assert "1..4" in lines
    assert "ok 1 test_basic.py::test_survives[vm,memory]" in lines
    assert "not ok 2 test_a.py::test_fails" in lines
    assert "ok 3 test_a.py::test_skips # SKIP no VM" in lines
    assert "# BROKEN: QEMU died" in lines


@pytest.mark.parametrize("render", [junit, ktap])
def test_an_attempt_without_scenarios_is_one_case(verdict: Verdict, render: object) -> None:
    early = replace(verdict, scenarios=(), outcome=Outcome.FAIL, reason="patch 3 does not apply")
    assert callable(render)
    assert "patch 3 does not apply" in render(early)
    assert "1..1" in render(early) or 'tests="1"' in render(early)


def test_run_directory_holds_everything_and_is_the_latest(case: Case, verdict: Verdict) -> None:
    write(case, verdict)
    latest = verdict.directory.parent / "latest"
    assert latest.resolve() == verdict.directory
    assert json.loads((latest / "result.json").read_text())["outcome"] == "BROKEN"
    assert (latest / "kernel.config").read_text() == "CONFIG_KVM=y\n"
    assert {path.name for path in latest.iterdir()} == {
        "result.json",
        "report.html",
        "junit.xml",
        "results.ktap",
        "kernel.config",
        "next-kernel.config",
    }


def test_latest_moves_on(case: Case, verdict: Verdict) -> None:
    write(case, verdict)
    second = replace(verdict, directory=create(verdict.directory.parent))
    write(case, second)
    assert (verdict.directory.parent / "latest").resolve() == second.directory


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="file") as caught:
        create(tmp_path / "file")
    assert "--runs" in caught.value.hint


def test_ktap_has_what_a_program_reported_of_its_parts(verdict: Verdict) -> None:
    parts = (
        Subtest("one", Outcome.PASS),
        Subtest("two", Outcome.SKIP, "no VMX"),
        Subtest("three", Outcome.FAIL),
    )
    first = replace(verdict.scenarios[0], subtests=parts)
    lines = ktap(replace(verdict, scenarios=(first,))).splitlines()
    begin = lines.index("    KTAP version 1")
    assert lines[begin + 1 : begin + 7] == [
        f"    # Subtest: {first.name}",
        "    1..3",
        "    ok 1 one",
        "    ok 2 two # SKIP no VMX",
        "    not ok 3 three",
        f"ok 1 {first.name}",
    ]
    # And it can be read again.
    assert [leaf.name for leaf in parse(lines).leaves] == [
        f"{first.name}.{name}" for name in ("one", "two", "three")
    ]
