# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands are looked up by name, so that only one is imported; here a type checker sees them all."""

from __future__ import annotations

from pathlib import Path

from harness.commands import (
    COMMANDS,
    Command,
    bench,
    bisect,
    build,
    check_series,
    command,
    doctor,
    history,
    kselftest,
    listing,
    matrix,
    merge,
    qualify,
    repro,
    rules,
    run,
    shell,
    test,
)

MODULES: tuple[Command, ...] = (
    *(bench, bisect, build, check_series, doctor, history, kselftest, listing),
    *(matrix, merge, qualify, repro, rules, run, shell, test),
)
# What several of them share.
SHARED = {"__init__", "kernels", "machines", "output", "remotes"}


def test_each_name_is_that_of_one_module() -> None:
    assert {command(name) for name in COMMANDS} == set(MODULES)
    assert len(COMMANDS) == len(MODULES)


def test_no_module_is_without_a_name() -> None:
    files = {path.stem for path in Path(run.__file__).parent.glob("*.py")}
    assert files - SHARED == {module for module, _ in COMMANDS.values()}
