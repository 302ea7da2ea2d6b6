# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the kernel's own tests there are to run, and which of them a user's words mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import yaml

from harness.case import Selftest
from harness.errors import UsageError

FOLDER = "tools/testing/selftests/"
FIELDS = {field.name for field in fields(Selftest)} - {"name", "named"}


def load(file: Path) -> tuple[Selftest, ...]:
    """The tests of the list (selftests/kselftest.yaml), in its order; UsageError for a mistake in it."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not YAML: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: a mapping of tests is expected")
    for name, settings in found.items():
        if settings is not None and (not isinstance(settings, dict) or set(settings) - FIELDS):
            raise UsageError(f"{file}: {name}: fields are {', '.join(sorted(FIELDS))}")
    return tuple(Selftest(name, **(settings or {})) for name, settings in found.items())


def resolve(
    words: Iterable[str], two_stage: Iterable[str], known: tuple[Selftest, ...]
) -> tuple[Selftest, ...]:
    """The tests that the words mean; all of the list where there are none.

    A word is a test's name (luo_kexec_simple), a folder of the list (liveupdate), or a path to any test of a
    tree: kvm/x86/cpuid_test, tools/testing/selftests/liveupdate/mine.c. two_stage: paths of tests that go on
    after a kexec. Raises UsageError with the nearest names for a word that means nothing.
    """
    wanted = [one for word in words for one in _resolve(word, known)]
    wanted += [one for path in two_stage for one in _two_stage(path, known)]
    return tuple({one.name: one for one in wanted or known}.values())


def _resolve(word: str, known: tuple[Selftest, ...]) -> list[Selftest]:
    path = _path(word)
    # A folder first: tools/testing/selftests/liveupdate has a test of the same name.
    if folder := [one for one in known if one.collection == path.rstrip("/")]:
        return folder
    if named := [one for one in known if path in (one.name, one.program)]:
        return [replace(one, named=True) for one in named]
    if "/" in path:
        return [Selftest(path, named=True)]
    raise UsageError(f"there is no test {word!r} in the list", hint=_hint(path, known))


def _two_stage(word: str, known: tuple[Selftest, ...]) -> list[Selftest]:
    path = _path(word)
    named = [one for one in known if path in (one.name, one.program)]
    if not named and "/" not in path:
        raise UsageError(
            f"{word!r} is no path of a test",
            hint=f"name it as {FOLDER}liveupdate/{path}.c, or liveupdate/{path}",
        )
    return [Selftest(named[0].name if named else path, stages=2, named=True)]


def _path(word: str) -> str:
    """A test's path below tools/testing/selftests, without a suffix."""
    inside = word.partition(FOLDER)[2] if FOLDER in word else word
    return inside.removesuffix(".c").removeprefix("./")


def _hint(word: str, known: tuple[Selftest, ...]) -> str:
    names = {one.program for one in known} | {one.collection for one in known}
    near = difflib.get_close_matches(word, sorted(names), n=3, cutoff=0.5)
    said = f"did you mean {', '.join(near)}?" if near else "`luh kselftest --list` names them"
    return f"{said} Any other of the tree goes by its path: {FOLDER}kvm/x86/cpuid_test.c"
