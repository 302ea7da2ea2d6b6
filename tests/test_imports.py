# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may import whom, who starts processes, who prints: the architecture, kept by reading the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
SOURCES = {path.relative_to(ROOT).with_suffix(""): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = {".".join(("harness", *name.parts)).removesuffix(".__init__") for name in SOURCES}
STAGES = ("kernel", "image", "machine", "guest", "crash", "kselftest", "report", "ssh")
VOCABULARY = {"", "case", "errors", "command", "deadline", "store"}

# What a stage may import beyond the vocabulary and its own folder.
STAGE_NEEDS = {
    "guest": {"machine", "agent.wire"},
    "machine": {"agent.wire"},
    "ssh": {"machine", "agent.wire", "exchange", "slots"},
    "kselftest": {"guest.program"},
}
# attempt, boot and plugin compose the stages, and so does what runs the kernel's own tests, what a person
# works with, what tries patches (workshop), and what takes a start apart (breakdown); diagnosis composes a
# machine's end with its kernels' sources; work imports ahead of time what scenarios will; the command line
# only names what is in their catalogues.
COMPOSERS = {
    *("attempt", "boot", "breakdown", "diagnosis", "plugin", "remote", "shell", "upstream", "work"),
    "workshop",
}
# A bisection reads repositories and the versions in them; it knows no other part of a stage.
CATALOGUES = {
    "repro": {"report"},
    "commands": {
        "kernel.definition",
        "kernel.patches",
        "image.recipe",
        "kselftest.tests",
        "report",
        "ssh.connection",
    },
    "bisect": {"kernel.git", "kernel.abi", "kernel.patches"},
}
STARTERS = {"subprocess.run", "subprocess.Popen", "os.system", "os.popen", "os.fork", "os.posix_spawn"}
# Besides report/ and the command line: scripts, whose output is their result.
PRINTERS = {"ssh/launcher", "options", "environment", "image/collect", "agent/__main__"}


def imported(path: Path) -> Iterator[str]:
    """The modules that a source imports anywhere, by their absolute names; relative ones start with a dot."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from harness import doctor` imports harness.doctor; `from harness.case import MiB` no more.
            below = {f"{module}.{alias.name}" for alias in node.names} & MODULES
            yield from below or {module}


def own(path: Path) -> set[str]:
    """The imports from the harness, without its name: "case", "machine.qemu"."""
    names = (name for name in imported(path) if name.split(".")[0] == "harness")
    return {name.removeprefix("harness").removeprefix(".") for name in names}


def within(name: str, allowed: set[str]) -> bool:
    return name in allowed or any(name.startswith(f"{prefix}.") for prefix in allowed if prefix)


def calls(path: Path) -> set[str]:
    """The functions that a source calls, as it writes them: "print", "os.fork"."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def members(folder: str) -> list[Path]:
    return [path for name, path in SOURCES.items() if name.parts[0] == folder]


@pytest.mark.parametrize("path", members("agent"), ids=lambda path: path.name)
def test_the_agent_needs_only_the_standard_library_and_itself(path: Path) -> None:
    absolute = {name.split(".")[0] for name in imported(path) if not name.startswith(".")}
    above = {name for name in imported(path) if name.startswith("..")}
    assert not absolute - sys.stdlib_module_names
    assert not above


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_never_imports_another_stage(stage: str) -> None:
    allowed = VOCABULARY | {stage} | STAGE_NEEDS.get(stage, set())
    wrong = {(path.name, name) for path in members(stage) for name in own(path) if not within(name, allowed)}
    assert not wrong


def test_only_composers_know_several_stages() -> None:
    for name, path in SOURCES.items():
        if name.parts[0] not in (*STAGES, "agent", *COMPOSERS):
            stages = {module for module in own(path) if module.split(".")[0] in STAGES}
            allowed = CATALOGUES.get(name.parts[0], set())
            assert not {module for module in stages if not within(module, allowed)}, name


def test_only_command_starts_processes() -> None:
    for name, path in SOURCES.items():
        # The agent, and what runs beside QEMU on another machine, know nothing of the harness.
        if str(name) not in ("command", "ssh/supervisor") and name.parts[0] != "agent":
            assert not calls(path) & {
                "subprocess.run",
                "subprocess.Popen",
                "os.system",
                "os.popen",
                "os.fork",
            }


def test_only_the_command_line_and_reports_print() -> None:
    for name, path in SOURCES.items():
        if name.parts[0] in ("report", "commands", "shell") or str(name) in PRINTERS:
            continue
        assert "print" not in calls(path), name
