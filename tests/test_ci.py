# SPDX-License-Identifier: GPL-2.0-or-later
"""The templates that users copy: they parse, and every `luh` in them is one that the command line takes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import cli, command
from harness.commands import matrix
from harness.deadline import Deadline
from harness.matrix import emit

CI = Path(__file__).resolve().parents[1] / "ci"
TEMPLATES = ("github-nightly.yml", "gitlab-nightly.yml", "luh-nightly.service")
LUH = re.compile(r"(?:\./|/srv/luh/)luh ((?:(?! > )[^|\n)])*)")


def commands(text: str) -> list[list[str]]:
    """The words of every call of luh in a template, with the variables of its shell as a word."""
    found = [re.sub(r'"?\$\{?CELLS\}?"?', "--cell x", words).strip() for words in LUH.findall(text)]
    return [shlex.split(words.replace('"ci/$lane.yaml"', "ci/smoke.yaml")) for words in found]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_command_of_a_template_exists(name: str) -> None:
    calls = commands((CI / name).read_text())
    assert calls
    for words in calls:
        options = cli.parse(words)
        if plan := getattr(options, "plan", None):
            assert (CI.parent / plan).is_file()


def test_a_misspelt_command_would_be_noticed() -> None:
    with pytest.raises(SystemExit):
        cli.parse(commands("./luh matrix ci/smoke.yaml --outptu results")[0])


@pytest.mark.parametrize("plan", ["nightly", "smoke"])
def test_a_plan_s_cells_are_all_in_the_jobs(plan: str) -> None:
    loaded = matrix.load(CI / f"{plan}.yaml")
    names = {cell.name for cell in loaded.cells}
    github = json.loads(emit.github(loaded, "plan"))["include"]
    assert {word for job in github for word in shlex.split(job["cells"]) if word != "--cell"} == names
    assert {job["runner"] for job in github} == {"tcg" if plan == "smoke" else "kvm"}
    gitlab: dict[str, Any] = yaml.safe_load(emit.gitlab(loaded, f"ci/{plan}.yaml"))
    calls = [words for job in gitlab.values() if isinstance(job, dict) for words in job.get("script", ())]
    parsed = [cli.parse(words) for text in calls for words in commands(text)]
    assert {name for options in parsed for name in getattr(options, "cell", ())} == names


@pytest.mark.parametrize(
    ("name", "schema"),
    [("github-nightly.yml", "vendor.github-workflows"), ("gitlab-nightly.yml", "vendor.gitlab-ci")],
)
def test_a_template_is_what_its_system_takes(name: str, schema: str) -> None:
    """By the system's schema, where check-jsonschema is installed; its shape in any case."""
    data = yaml.load((CI / name).read_text(), Loader=yaml.BaseLoader)
    jobs = data["jobs"] if "jobs" in data else {key: job for key, job in data.items() if "script" in job}
    assert jobs
    needed = {"plan", "kvm", "tcg", "merge"} if "jobs" in data else {"plan", "smoke"}
    assert needed <= jobs.keys()
    checker = Path(sys.executable).parent / "check-jsonschema"
    if checker.exists():
        argv: list[str | Path] = [checker, "--builtin-schema", schema, CI / name]
        command.run(argv, deadline=Deadline.after(60, "the schema's check"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this machine has no systemd-analyze")
def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """With the paths and the user of a lab machine replaced by ones that are here."""
    for unit in CI.glob("luh-nightly.*"):
        text = unit.read_text().replace("/srv/luh/luh", "/bin/true").replace("User=luh", "User=root")
        (tmp_path / unit.name).write_text(text.replace("/srv/luh\n", f"{tmp_path}\n"))
    units = sorted(tmp_path.glob("luh-nightly.*"))
    done = command.run(
        ["systemd-analyze", "verify", *units], deadline=Deadline.after(60, "systemd"), check=False
    )
    assert (done.status, done.output) == (0, "")
