# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher: it makes its environment when it is due, and is out of the way otherwise.

It runs in a clone that has no dependencies, so that nothing needs a network, and all but one test no pip: a
stand-in for uv, an executable, makes a bare environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import harness
from harness.command import Completed, run
from harness.deadline import Deadline

ROOT = Path(harness.__file__).parents[1]
MODULES = ("__init__", "case", "command", "deadline", "doctor", "environment", "errors", "store")
CLI = "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.getcwd()]))\n"
PROJECT = '[project]\nname = "clone"\nversion = "0"\ndependencies = [{dependencies}]\n'
SECONDS = 120.0

UV = f"""#!/bin/sh
echo "$@" >> "$(dirname "$0")/uv.log"
case $1 in
venv) for target; do :; done; exec {sys.executable} -m venv --without-pip "$target" ;;
*) echo "error: no such package" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone in a path with a space, whose command line prints its arguments and directory."""
    root = tmp_path / "a clone"
    (root / "harness").mkdir(parents=True)
    for name in MODULES:
        shutil.copy(ROOT / "harness" / f"{name}.py", root / "harness")
    shutil.copy(ROOT / "luh", root)
    (root / "harness/cli.py").write_text(CLI)
    depend(root, "")
    (root / "constraints.txt").touch()
    return root


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory that comes first on PATH: this very Python, and the stand-in for uv."""
    directory = tmp_path / "tools"
    directory.mkdir()
    (directory / "python3").symlink_to(Path("/proc/self/exe").readlink())
    program(directory / "uv", UV)
    return directory


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def depend(root: Path, dependencies: str) -> None:
    (root / "pyproject.toml").write_text(PROJECT.format(dependencies=dependencies))


def luh(
    launcher: Path, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Completed:
    waiting = Deadline.after(SECONDS, "running the launcher")
    return run([launcher, *arguments], cwd=cwd, env=env, deadline=waiting, check=False)


def with_path(tools: Path) -> dict[str, str]:
    return {"PATH": f"{tools}:{os.environ['PATH']}"}


def made(tools: Path) -> int:
    """How many environments were made."""
    log = tools / "uv.log"
    return sum(line.startswith("venv") for line in log.read_text().splitlines()) if log.exists() else 0


def test_the_first_run_makes_the_environment_and_says_so_once(clone: Path, tools: Path) -> None:
    first = luh(clone / "luh", "run", env=with_path(tools))
    assert "making the Python environment" in first.output
    second = luh(clone / "luh", "run", env=with_path(tools))
    assert json.loads(second.output)[0] == ["run"]
    assert made(tools) == 1


def test_it_works_from_anywhere_and_through_links(clone: Path, tools: Path, tmp_path: Path) -> None:
    luh(clone / "luh", env=with_path(tools))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "absolute").symlink_to(clone / "luh")
    (elsewhere / "relative").symlink_to("../absolute")
    (elsewhere / "harness").mkdir()  # what lies in the user's directory is never imported
    (elsewhere / "harness/cli.py").write_text("raise SystemExit(9)\n")
    done = luh(elsewhere / "relative", "a b", "*", cwd=elsewhere, env=with_path(tools))
    assert json.loads(done.output) == [["a b", "*"], str(elsewhere)]


def test_a_moved_clone_still_works(clone: Path, tools: Path, tmp_path: Path) -> None:
    luh(clone / "luh", env=with_path(tools))
    moved = clone.rename(tmp_path / "moved")
    assert json.loads(luh(moved / "luh", "x", env=with_path(tools)).output)[0] == ["x"]


def test_byte_code_is_kept_beside_the_sources_of_those_who_want_none_among_them(
    clone: Path, tools: Path
) -> None:
    for _ in range(2):
        luh(
            clone / "luh", env={**with_path(tools), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": ""}
        )
    assert not list(clone.glob("harness/**/*.pyc"))
    assert list(clone.glob(".venv/bytecode/**/harness/__init__*.pyc"))


def test_new_constraints_make_a_new_environment(clone: Path, tools: Path) -> None:
    luh(clone / "luh", env=with_path(tools))
    (clone / "constraints.txt").write_text("rich==15.0.0\n")
    luh(clone / "luh", env=with_path(tools))
    assert made(tools) == 2


def test_a_change_that_is_no_dependency_makes_none(clone: Path, tools: Path) -> None:
    luh(clone / "luh", env=with_path(tools))
    with (clone / "pyproject.toml").open("a") as file:
        file.write("[tool.ruff]\nline-length = 100\n")
    assert "making" not in luh(clone / "luh", env=with_path(tools)).output
    assert made(tools) == 1


@pytest.mark.parametrize("lost", [("bin/python",), ("luh-stamp", "luh-requirements")])
def test_a_broken_or_interrupted_environment_is_mended(clone: Path, tools: Path, lost: tuple[str]) -> None:
    luh(clone / "luh", env=with_path(tools))
    for name in lost:
        (clone / ".venv" / name).unlink()
    done = luh(clone / "luh", "x", env=with_path(tools))
    assert json.loads(done.output.splitlines()[-1])[0] == ["x"]


def test_two_first_runs_at_once_make_one_environment(clone: Path, tools: Path) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(luh, clone / "luh", "x", env=with_path(tools)) for _ in range(3)]
        done = [run.result() for run in runs]
    assert [one.status for one in done] == [0, 0, 0]
    assert made(tools) == 1


def test_a_failed_installation_is_one_line_and_keeps_the_former_environment(clone: Path, tools: Path) -> None:
    luh(clone / "luh", env=with_path(tools))
    depend(clone, '"no-such-package"')
    failed = luh(clone / "luh", env=with_path(tools))
    assert failed.status == 3
    assert "cannot install the Python packages: error: no such package" in failed.output
    assert "Traceback" not in failed.output
    depend(clone, "")
    assert json.loads(luh(clone / "luh", "x", env=with_path(tools)).output)[0] == ["x"]
    assert made(tools) == 2  # the second is the one that failed


def test_the_status_of_the_command_line_is_the_launchers(clone: Path, tools: Path) -> None:
    (clone / "harness/cli.py").write_text("raise SystemExit(7)\n")
    assert luh(clone / "luh", env=with_path(tools)).status == 7


def test_without_a_python_that_is_new_enough_it_says_what_is_needed(clone: Path, tools: Path) -> None:
    (tools / "python3").unlink()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        program(tools / name, "#!/bin/sh\nexit 1\n")
    done = luh(clone / "luh", env=with_path(tools))
    assert done.status == 3
    assert "Python 3.11 or newer is needed" in done.output


@pytest.mark.long
def test_without_uv_the_real_pip_is_asked(clone: Path) -> None:
    depend(clone, '"no-such-package"')
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    without_uv = ":".join(path for path in os.environ["PATH"].split(":") if not (Path(path) / "uv").exists())
    done = luh(clone / "luh", env={**offline, "PATH": without_uv})
    assert done.status == 3
    assert "cannot install the Python packages: ERROR: " in done.output
    assert "no-such-package" in done.output
    assert not (clone / ".venv").exists()
