# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh matrix`, `qualify`, `merge` and `history` as a user has them; only QEMU is a stand-in."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness import command
from harness.deadline import Deadline
from harness.store import Store

ROOT = Path(__file__).resolve().parents[2]
FAKELINUX = ROOT / "tests/fakelinux"
SCENARIO = "def test_it(host):\n    host.files.memfd(4096).fill(seed=1)\n"


@dataclass(frozen=True)
class Luh:
    directory: Path
    store: Store

    def __call__(self, *words: str | Path) -> tuple[int, str]:
        argv = [sys.executable, "-P", "-m", "harness.cli", *words]
        env = {
            "PYTHONPATH": str(ROOT),
            "LUH_STORE": str(self.store.root),
            "LUH_RUNS": str(self.directory / "runs"),
            "LUH_MATRICES": str(self.directory / "matrices"),
            "LUH_HISTORY": str(self.directory / "history.sqlite"),
            "COLUMNS": "160",
        }
        deadline = Deadline.after(170, "luh")
        done = command.run(argv, env=env, cwd=self.directory, deadline=deadline, check=False)
        return done.status, done.output


@pytest.fixture
def luh(tmp_path: Path, small_store: Store, standin: object, write_scenario: Callable[[str], Path]) -> Luh:
    """Two kernels, one of which fails to compile, and a plan over them."""
    scenario = write_scenario(SCENARIO)
    (tmp_path / "tiny.config").write_text("CONFIG_EXPERT=y\n")
    for name, line in (("works", "int fine;"), ("broken", "int = ;")):
        tree = Path(shutil.copytree(FAKELINUX, tmp_path / f"tree-{name}"))
        with (tree / "kernel/fork.c").open("a") as file:
            file.write(f"{line}\n")
        (tmp_path / f"{name}.yaml").write_text(
            f"source:\n  - tree: {tree}\nfragments: [{tmp_path}/tiny.config]\n"
        )
    (tmp_path / "plan.yaml").write_text(
        f"from: [{tmp_path}/works.yaml, {tmp_path}/broken.yaml]\nto: [{tmp_path}/works.yaml]\n"
        f"scenarios: [{scenario}]\n"
    )
    return Luh(tmp_path, small_store)


def test_a_matrix_its_results_and_its_history(luh: Luh) -> None:
    """Cells of a kernel that cannot be built fail, the others pass; both on two machines, joined."""
    status, said = luh("matrix", "plan.yaml", "--list")
    works, broken = said.split()
    assert works.startswith("works>works/")
    first = luh("matrix", "plan.yaml", "--cell", works, "--output", "one", "--no-history")
    assert first[0] == 0, first[1]
    second = luh("matrix", "plan.yaml", "--cell", broken, "--output", "two", "--no-history")
    assert second[0] == 1, second[1]
    assert "does not compile" in second[1]

    status, said = luh("merge", "one", "two", "--name", "night", "--plan", "plan.yaml", "--output", "joined")
    assert status == 1, said
    assert "2 cells: 1 PASS, 1 FAIL" in said
    page = (luh.directory / "joined/report.html").read_text()
    assert "does not compile" in page
    suite = ElementTree.parse(luh.directory / "joined/junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")

    status, said = luh("history", "--html", "night.html", "--junit", "night.xml")
    assert status == 1
    assert "New failures" in said
    assert "broken" in (luh.directory / "night.html").read_text()
    base = sqlite3.connect(luh.directory / "history.sqlite")
    rows = base.execute("SELECT outcome, accelerator, kernel FROM verdict WHERE scenario = ''").fetchall()
    assert [row[0] for row in rows] == ["PASS", "FAIL"]
    assert base.execute("SELECT count(*) FROM measurement WHERE name = 'seconds'").fetchone() == (1,)

    assert luh("merge", "one", "two", "--name", "night")[0] == 1
    status, said = luh("history", "night")
    assert (status, "Failed before" in said) == (0, True)  # what failed before is no news


def test_a_cell_that_no_machine_sent_is_broken(luh: Luh) -> None:
    works = luh("matrix", "plan.yaml", "--list")[1].split()[0]
    assert luh("matrix", "plan.yaml", "--cell", works, "--output", "one", "--no-history")[0] == 0
    status, said = luh("merge", "one", "--plan", "plan.yaml", "--no-history")
    assert status == 3
    assert "no machine gave a result" in said


def test_an_interrupted_matrix_goes_on_where_it_stopped(luh: Luh) -> None:
    status, said = luh("matrix", "plan.yaml", "--no-history", "--output", "out")
    assert status == 1, said
    (place,) = (luh.directory / "matrices").iterdir()
    assert list(place.iterdir()) == []  # a matrix that has ended starts anew
    for file in (luh.directory / "out").glob("*.cell.json"):
        if json.loads(file.read_text())["outcome"] == "PASS":
            shutil.copy(file, place)
    status, said = luh("matrix", "plan.yaml", "--no-history")
    assert "1 of 2 cells had ended before" in said
    assert f"Report  {place}/report.html" in said
    assert {file.name for file in place.iterdir()} == {"report.html", "junit.xml"}
    page = (place / "report.html").read_text()
    assert len(re.findall(r'<a href="/[^"]+/runs/2[^"]+/report.html">', page)) == 2
    assert len(list((luh.directory / "runs").glob("2*"))) == 3


def test_a_pair_is_qualified_in_words(luh: Luh, write_scenario: Callable[[str], Path]) -> None:
    scenario = luh.directory / "scenarios/test_own.py"
    status, said = luh("qualify", "./works.yaml", "./works.yaml", scenario, "--dry-run")
    assert (status, "1 cell with 1 kernel: nothing is known of how long" in said) == (0, True), said
    assert not (luh.directory / "runs").exists()
    status, said = luh("qualify", "./works.yaml", "./works.yaml", scenario)
    assert (status, "safe to go" in said) == (0, True), said
    status, said = luh("qualify", "./works.yaml", "./works.yaml", scenario, "--dry-run")
    assert re.search(r"1 cell with 1 kernel: about [\d.]+ s one after the other", said), said
    write_scenario("def test_it(host):\n    raise CrashError('the guest rebooted')\n")
    status, said = luh("qualify", "./works.yaml", "./works.yaml", scenario, "--fresh")
    assert (status, "would lose the VMs" in said) == (1, True), said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("to: [linux-7.3]\n", "from: is missing"),
        ("from: [linux-9]\n", "unknown kernel 'linux-9'"),
        ("from: [linux-7.3]\nmachine: {}\n", "machine: is no field"),
        ("from: [linux-7.3]\nmachines: {a: {cpu: 2}}\n", "machines.a.cpu: is no field"),
        ("from: [linux-7.3]\nmachines: {a: {accelerator: real}}\n", "a.accelerator: there is no real"),
        ("from: [linux-7.3]\nconfigs: {a: [debgu]}\n", "there is no fragment 'debgu'"),
        ("from: [linux-7.3]\nscenarios: [nothing]\n", "there is no scenario 'nothing'"),
        ("from: [linux-7.3]\nexclude: ['*']\n", "leaves no cell"),
        ("from: [linux-7.3]\njobs: many\n", "jobs: 'many' is no positive number"),
        ("from: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_plan_is_named(luh: Luh, text: str, says: str) -> None:
    (luh.directory / "plan.yaml").write_text(text)
    status, said = luh("matrix", "plan.yaml")
    assert status == 2
    assert says in said
