# SPDX-License-Identifier: GPL-2.0-or-later
"""What a start costs: nothing is imported before it is needed, of what takes long to import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import harness
from harness.command import run
from harness.deadline import Deadline

ROOT = Path(harness.__file__).parents[1]
CLI = ("-m", "harness.cli")
IMPORTS = ("-c", "import sys; [__import__(name) for name in sys.argv[1:]]")
COLLECT = """
import sys
from harness import plugin, work
plugin.start((*work.OPTIONS, "--collect-only", *sys.argv[1:]), plugin.Run())
"""
CHILD = ("-c", COLLECT, f"--rootdir={ROOT}/selftests", "selftests/test_basic.py")
# Of a machine elsewhere, of a prompt, of mail, of a download, of the report, of what is shown on a terminal.
REMOTE, PROMPT = {"paramiko", "harness.ssh.connection"}, {"pdb", "code"}
MAIL, DOWNLOAD = {"email", "mailbox"}, {"urllib.request", "http.client", "ssl"}
REPORT, SHOWN = {"jinja2", "harness.report.html", "harness.report.junit"}, {"rich"}


def imported(words: tuple[str, ...]) -> set[str]:
    """The modules that Python imports for these words, and the packages that they are in."""
    argv = (sys.executable, "-P", "-X", "importtime", *words)
    done = run(
        argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, deadline=Deadline.after(60, "a start"), check=False
    )
    lines = [line for line in done.output.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("rnu",), ("run", "--froom")])
def test_what_is_answered_at_once_needs_no_library(words: tuple[str, ...]) -> None:
    found = imported((*CLI, *words))
    assert "harness.cli" in found or "argparse" in found
    assert not found & {"yaml", "asyncio", "harness.attempt", *REMOTE, *REPORT, *MAIL, *DOWNLOAD, *SHOWN}


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("rnu",)])
def test_without_a_command_none_is_imported(words: tuple[str, ...]) -> None:
    own = {name for name in imported((*CLI, *words)) if name.startswith("harness.")}
    assert own == {"harness.commands", "harness.errors", "harness.options"}


def test_only_a_command_with_scenarios_starts_a_process_for_them() -> None:
    assert "harness.hand" in imported((*CLI, "run", "--froom"))
    for words in (("run", "--help"), ("list", "--froom"), ("--version",)):
        assert "harness.hand" not in imported((*CLI, *words))


def test_a_run_here_imports_nothing_for_one_elsewhere_nor_its_report_before_it_waits() -> None:
    found = imported((*IMPORTS, "harness.attempt", "harness.commands.run"))
    assert "harness.crew" in found
    assert not found & {*REMOTE, *REPORT, *MAIL, *DOWNLOAD, *SHOWN}


def test_scenarios_import_nothing_of_what_comes_before_and_after_them() -> None:
    found = imported(CHILD)
    assert "harness.guest.session" in found
    assert not found & {"harness.attempt", "yaml", *REMOTE, *REPORT, *PROMPT, *SHOWN, "mailbox"}
