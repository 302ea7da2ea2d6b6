# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the project's own Python environment, `.venv` beside the launcher; `./luh` runs this when it is due.

Needs the standard library only. An environment counts as made when its stamp is there, which is written
last and under a lock: neither an interruption nor two first runs at once leave a broken one behind.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from harness.case import Tool, Update
from harness.command import find, run
from harness.deadline import Deadline
from harness.doctor import install
from harness.errors import HarnessError, InfraError, UsageError
from harness.store import locked

SECONDS = 900.0
STAMP = "luh-stamp"  # what the launcher compares: the inputs as they were
REQUIREMENTS = "luh-requirements"  # what of the inputs matters here
Say = Callable[[str], None]


def ensure(root: Path, *, allowed: bool, say: Say) -> None:
    """Make `root/.venv` anew if it is missing, broken or out of date; an old one stays until then.

    allowed: packages of the distribution may be installed also by a user who is not root. Raises
    UsageError with the command to type where the venv module is missing, InfraError when pip fails.
    """
    deadline = Deadline.after(SECONDS, "making the Python environment")
    venv, former = root / ".venv", root / ".venv.old"
    with locked(root / ".venv.lock", deadline):
        wanted = requirements(root)
        if not _usable(venv, wanted):
            say("making the Python environment in .venv (once; about half a minute)")
            shutil.rmtree(former, ignore_errors=True)
            if venv.exists():
                venv.rename(former)
            try:
                _make(root, venv, allowed, say, deadline)
            except BaseException:
                shutil.rmtree(venv, ignore_errors=True)
                if former.exists():
                    former.rename(venv)
                raise
            shutil.rmtree(former, ignore_errors=True)
            (venv / REQUIREMENTS).write_text(wanted)
        (venv / STAMP).write_bytes(inputs(root))


def inputs(root: Path) -> bytes:
    """What the launcher's stamp is compared with."""
    return (root / "pyproject.toml").read_bytes() + (root / "constraints.txt").read_bytes()


def requirements(root: Path) -> str:
    """What an environment depends on: the dependencies, their constraints, the interpreter."""
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return json.dumps([_dependencies(root), pins, sys.version_info[:2], str(_interpreter())])


def _dependencies(root: Path) -> list[str]:
    """Those to run and those to develop: one environment serves the harness and its own tests."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project.get("dependencies", []), *project.get("optional-dependencies", {}).get("dev", [])]


def _interpreter() -> Path:
    """The real binary, so that the environment breaks visibly when the distribution replaces it."""
    return Path("/proc/self/exe").readlink()


def _usable(venv: Path, wanted: str) -> bool:
    kept = venv / REQUIREMENTS
    return os.access(venv / "bin/python", os.X_OK) and kept.is_file() and kept.read_text() == wanted


def _make(root: Path, venv: Path, allowed: bool, say: Say, deadline: Deadline) -> None:
    python = venv / "bin/python"
    packages = _dependencies(root)
    constrained: list[str | Path] = ["--constraint", root / "constraints.txt", *packages]
    if find("uv"):
        _run(["uv", "venv", "--quiet", "--python", _interpreter(), venv], "make .venv", deadline)
        installer: list[str | Path] = ["uv", "pip", "install", "--quiet", "--python", python]
    else:
        _need_venv(allowed, say)
        _run([_interpreter(), "-m", "venv", venv], "make .venv", deadline)
        pip = "-m pip install --quiet --disable-pip-version-check --no-input --retries 2"
        installer = [python, "-I", *pip.split()]
    if packages:
        _run([*installer, *constrained], "install the Python packages", deadline)
    # In place of an editable install, which would fetch and run a build system. Relative: a clone may move.
    site = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "luh.pth").write_text(os.path.relpath(root, site) + "\n")


def _need_venv(allowed: bool, say: Say) -> None:
    """Debian keeps the module that puts pip into an environment in a package of its own."""
    if find_spec("ensurepip") is None:
        package = f"python{sysconfig.get_python_version()}-venv"
        tool = Tool("ensurepip", "the Python environment", package)
        install([tool], allowed=allowed, progress=lambda update: _important(update, say))


def _important(update: Update, say: Say) -> None:
    if update.text.startswith("install"):
        say(update.text)


def _run(argv: list[str | Path], purpose: str, deadline: Deadline) -> None:
    done = run(argv, deadline=deadline, check=False)
    if done.status != 0:
        hint = "`pip config list` and PIP_INDEX_URL say which package index is used"
        raise InfraError(f"cannot {purpose}: {_reason(done.output)}", hint=hint)


def _reason(output: str) -> str:
    """The first complaint; pip's last one, after it gave up, is a riddle."""
    if "connection broken" in output:
        return "the package index does not answer"
    complaints = [line for line in output.splitlines() if line.lower().startswith("error")]
    return complaints[0] if complaints else output.strip().partition("\n")[0]


def main(arguments: list[str]) -> int:
    """For the launcher: the user's own arguments in, an exit status out."""
    try:
        ensure(Path(__file__).parents[1], allowed="--install" in arguments, say=_say)
    except HarnessError as error:
        _say("\n     ".join(filter(None, (error.message, error.hint))))
        return 2 if isinstance(error, UsageError) else 3
    except KeyboardInterrupt:
        return 130
    return 0


def _say(line: str) -> None:
    print(f"luh: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
