# SPDX-License-Identifier: GPL-2.0-or-later
"""Every source says under which license it is, and every YAML file, C file and script is a source."""

from __future__ import annotations

from pathlib import Path

import harness

ROOT = Path(harness.__file__).parents[1]
FOLDERS = ("harness", "guest-images", "selftests", "tests", "ci", ".ci", "kernel-configs")
SUFFIXES = {".py", ".c", ".h", ".S", ".lds", ".sh", ".yaml", ".yml", ".toml"}
IDENTIFIER = "SPDX-License-Identifier: GPL-2.0"
HEAD_LINES = 3
FOREIGN = ROOT / "tests/fakelinux"  # shaped like a kernel, down to its headers


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return [ROOT / "luh", ROOT / ".ci/run", ROOT / "pyproject.toml", ROOT / "constraints.txt", *found]


def test_every_source_names_its_license() -> None:
    ours = [path for path in sources() if not path.is_relative_to(FOREIGN)]
    heads = {path: path.read_text(encoding="utf-8").splitlines()[:HEAD_LINES] for path in ours}
    silent = [path for path, head in heads.items() if not any(IDENTIFIER in line for line in head)]
    assert not silent


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert not [pin for pin in pins if pin.count("==") != 1 or "/" in pin or "@" in pin]
