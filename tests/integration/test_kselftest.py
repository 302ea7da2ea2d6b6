# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of two stages on a real kernel: the kernel's own, ours that are honest, and ours that lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import attempt, command, upstream
from harness.case import (
    Accelerator,
    Case,
    MachineSpec,
    Outcome,
    PatchedTree,
    Program,
    ScenarioResult,
    Selftest,
)
from harness.commands import kernels
from harness.deadline import Deadline
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, DEFAULT_RECIPE
from harness.store import Store
from tests.integration.conftest import BUILD_SECONDS, ENVIRONMENT, LUH, RUN_SECONDS, build

SOURCE = Path(__file__).with_name("two_stages.c")
FOLDER = "tools/testing/selftests/liveupdate"
MAKEFILE_HUNK = f"""\
--- a/{FOLDER}/Makefile
+++ b/{FOLDER}/Makefile
@@ -7,2 +7,3 @@
 TEST_GEN_PROGS_EXTENDED += luo_stress_sessions
+TEST_GEN_PROGS_EXTENDED += luo_brought_along
 TEST_GEN_PROGS_EXTENDED += luo_stress_files
"""


@dataclass(frozen=True)
class Ready:
    """Trials whose programs are built."""

    programs: tuple[Program, ...]

    def admit(self, tree: PatchedTree) -> None:
        pass

    def run(self, ground: attempt.Ground) -> None:
        upstream.run_all(ground, list(self.programs))


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Program]:
    """Compiles two_stages.c, with macros that make it lie, as a test of that name."""

    def run(name: str, *macros: str) -> Program:
        path = tmp_path / name
        flags = [f"-D{macro}" for macro in (*macros, f'NAME="{name}"')]
        deadline = Deadline.after(60, "a test's compiler")
        command.run(["gcc", "-static", "-O1", *flags, "-o", path, SOURCE], deadline=deadline)
        return Program(Selftest(f"ours/{name}", stages=2), digest=name, path=path, seconds=10.0)

    return run


@pytest.fixture
def run(kernel: None, tmp_path: Path) -> Callable[..., dict[str, ScenarioResult]]:
    """Runs programs as `luh kselftest` runs those of a tree."""

    def run(*programs: Program) -> dict[str, ScenarioResult]:
        definition = kernels.load(DEFAULT_KERNEL)
        machine = MachineSpec(accelerator=Accelerator.TCG)
        trials = attempt.make(
            layout=Layout.here(),
            store=Store.default(),
            runs=tmp_path / "runs",
            trials=Ready(programs),
        )
        verdict = trials(Case(definition, definition, DEFAULT_RECIPE, machine, ()))
        return {result.name.rpartition("/")[2]: result for result in verdict.scenarios}

    return run


def test_honest_tests_share_an_update_and_liars_are_found(
    run: Callable[..., dict[str, ScenarioResult]], compiled: Callable[..., Program]
) -> None:
    results = run(
        compiled("idle", "IDLE"),
        compiled("honest"),
        compiled("stays", "STAYS"),
        compiled("forgets", "FORGETS"),
        compiled("wrong", 'EXPECTED="otherwise"'),
        compiled("short", "SHORT"),
        compiled("reboots", "REBOOTS"),
    )
    assert {name: result.outcome for name, result in results.items()} == {
        "idle": Outcome.FAIL,
        "honest": Outcome.PASS,
        "stays": Outcome.PASS,
        "forgets": Outcome.FAIL,
        "wrong": Outcome.FAIL,
        "short": Outcome.FAIL,
        "reboots": Outcome.FAIL,
    }
    assert results["idle"].reason == upstream.WITHOUT_UPDATE
    assert results["wrong"].reason == "stage 2: the data: not ok, and yet it exits with 0"
    assert results["short"].reason == "stage 2: 2 tests planned, 1 reported"
    assert results["reboots"].reason == "the guest rebooted"
    (update,) = results["honest"].updates
    assert update.from_boot_id != update.to_boot_id
    assert update.kexec_count == 1
    assert results["stays"].updates == (update,)


def kselftest(runs: Path, seconds: float, *words: str) -> list[dict[str, Any]]:
    """What `luh kselftest` with these words says of each test; it has to exit with 0."""
    argv = [*LUH, "kselftest", *words, "--accel", "tcg", "--runs", str(runs)]
    deadline = Deadline.after(seconds, "luh kselftest")
    done = command.run(argv, env=ENVIRONMENT, deadline=deadline, check=False)
    assert done.status == 0, done.output
    scenarios: list[dict[str, Any]] = json.loads((runs / "latest/result.json").read_text())["scenarios"]
    return scenarios


def test_a_test_that_upstream_calls_manual_runs_unattended(kernel: None, tmp_path: Path) -> None:
    """`luh kselftest` from the kernel's own source to the verdict."""
    ran = kselftest(tmp_path, RUN_SECONDS, "luo_kexec_simple", "liveupdate/liveupdate", "--json")
    simple, device = ran if ran[0]["live_updates"] else ran[::-1]
    assert (simple["name"], simple["outcome"]) == ("kselftest::liveupdate/luo_kexec_simple", "PASS")
    assert len(simple["live_updates"]) == 1
    assert (device["name"], device["outcome"]) == ("kselftest::liveupdate/liveupdate", "PASS")
    assert len(device["subtests"]) > 1
    output = (tmp_path / "latest" / simple["traces"] / "output.log").read_text()
    assert "Stage mismatch" in output.partition("# stage 1:")[0]
    assert "SIMPLE KEXEC TEST PASSED" in output.partition("# stage 2: status 0")[2]


@pytest.mark.long
def test_every_test_of_the_list_passes_on_the_kernel_that_has_all_they_use(tmp_path: Path) -> None:
    words = ("--kernel", "linux-7.3-kselftest")
    build(*words)
    ran = kselftest(tmp_path, RUN_SECONDS, *words)
    listed = yaml.safe_load((Layout.here().scenarios / "kselftest.yaml").read_text())
    assert {one["name"].partition("::")[2]: one["outcome"] for one in ran} == dict.fromkeys(listed, "PASS")


@pytest.mark.long
def test_a_test_that_only_the_series_brings(kernel: None, tmp_path: Path) -> None:
    """Named by its path in the tree, a test that a patch adds is built and goes through both stages."""
    series = tmp_path / "mine.patch"
    series.write_text(_patch(SOURCE.read_text()))
    words = ("--series", "ours", "--series", str(series), "--two-stage", f"{FOLDER}/luo_brought_along.c")
    (test,) = kselftest(tmp_path / "runs", BUILD_SECONDS, *words)
    assert (test["name"], test["outcome"]) == ("kselftest::liveupdate/luo_brought_along", "PASS")
    assert len(test["live_updates"]) == 1


def _patch(source: str) -> str:
    """A patch as a user would have it, that brings a test of two stages into the kernel's tree."""
    lines = "".join(f"+{line}\n" for line in source.splitlines())
    hunk = f"@@ -0,0 +1,{len(source.splitlines())} @@\n{lines}"
    file = f"--- /dev/null\n+++ b/{FOLDER}/luo_brought_along.c\n{hunk}"
    head = "From: A developer <developer@example.org>\nSubject: selftests: bring a test\n\n---\n"
    return f"{head}{MAKEFILE_HUNK}{file}"
