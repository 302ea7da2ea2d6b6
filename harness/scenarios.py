# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios there are, and which of them a user's words mean. Pure: files are parsed, never run.

So a misspelt name is an error within milliseconds, not after a kernel was built.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

EVERYTHING = ("all", "selftests")
DEFAULT = ("basic",)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One test function. rules: the ids of the contract that it checks. lane: "long", or "" for every run."""

    file: Path
    function: str
    summary: str
    rules: tuple[str, ...]
    lane: str = ""

    @property
    def name(self) -> str:
        return f"{self.file.name}::{self.function}"

    @property
    def subject(self) -> str:
        return self.file.stem.removeprefix("test_")


def catalogue(folder: Path) -> tuple[Scenario, ...]:
    """Every scenario of the folder's test_*.py files, in the order of the files and of their lines."""
    return tuple(found for file in sorted(folder.glob("test_*.py")) for found in _scenarios(file))


def resolve(words: Iterable[str], folder: Path, *, everything: bool = False) -> tuple[str, ...]:
    """What pytest is to be called with for the user's words.

    A word is "all", a subject ("basic" for test_basic.py), a function's name, either with a parameter in
    brackets, pytest's FILE::FUNCTION, a rule's id, or the path of a file of the user's own. Scenarios of the
    long lane are left out of "all", subjects and rules, unless with `everything`; their own names mean them.
    Raises UsageError with the nearest names for a word that means nothing.
    """
    wanted = tuple(words) or DEFAULT
    known = tuple(found for file in _mentioning(wanted, folder) for found in _scenarios(file))
    chosen = (node for word in wanted for node in _resolve(word, known, folder, everything))
    return tuple(dict.fromkeys(chosen))


def needs(file: Path) -> frozenset[str]:
    """What any scenario of a file says that it needs (`pytest.mark.needs`); nothing of a file that is not
    there.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), file.name)
    except (OSError, SyntaxError):
        return frozenset()
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    marks = (node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "needs")
    words = (argument.value for mark in marks for argument in mark.args if isinstance(argument, ast.Constant))
    return frozenset(word for word in words if isinstance(word, str))


def rules(contract: Path) -> dict[str, str]:
    """The contract's rules: what each says, by its id ("K3")."""
    items = re.split(r"^- (?=[A-Z]\d+ )", contract.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    pairs = (item.partition("\n\n")[0].partition("\n#")[0].partition(" ") for item in items)
    return {name: " ".join(text.split()) for name, _, text in pairs}


def _resolve(word: str, known: tuple[Scenario, ...], folder: Path, everything: bool) -> list[str]:
    path, _, inside = word.partition("::")
    if "/" in path and path.endswith(".py") and Path(path).is_file():
        return [f"{Path(path).resolve()}{'::' * bool(inside)}{inside}"]
    plain, bracket, parameter = word.partition("[")
    if found := [_node(one) + bracket + parameter for one in known if plain in (one.function, one.name)]:
        return found
    meant = [one for one in known if word in EVERYTHING or _is_of(one, word)]
    if not meant:
        raise UsageError(f"there is no scenario {word!r}", hint=_hint(plain, catalogue(folder)))
    left = [one for one in meant if everything or not one.lane]
    if not left:
        raise UsageError(f"all scenarios of {word!r} take long", hint="add --all, or name one of them")
    by_rule = word.upper() in meant[0].rules
    partial = {one.file for one in set(meant) - set(left)}
    return [_node(one) if by_rule or one.file in partial else str(one.file) for one in left]


def _mentioning(words: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """The files that can have what the words mean: to parse all takes longer than all else before a run."""
    anything = any(word in EVERYTHING for word in words)
    names = {word.partition("[")[0].rpartition("::")[2] for word in words}
    for file in sorted(folder.glob("test_*.py")):
        text = file.name + file.read_text(encoding="utf-8")
        if anything or any(name in text or name.upper() in text for name in names):
            yield file


def _node(scenario: Scenario) -> str:
    return f"{scenario.file}::{scenario.function}"


def _is_of(scenario: Scenario, word: str) -> bool:
    return word in (scenario.file.name, scenario.subject) or word.upper() in scenario.rules


def _hint(word: str, known: tuple[Scenario, ...]) -> str:
    names = {scenario.subject for scenario in known} | {scenario.function for scenario in known}
    near = difflib.get_close_matches(
        word.rpartition("::")[2], sorted(names | set(EVERYTHING)), n=3, cutoff=0.5
    )
    return f"did you mean {', '.join(near)}?" if near else "`luh list` names them all"


def _scenarios(file: Path) -> Iterator[Scenario]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), file.name)
    except SyntaxError as error:
        raise UsageError(f"{file}:{error.lineno}: {error.msg}") from error
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            lane = "".join(_marked(node, "lane"))
            yield Scenario(file, node.name, summary, _marked(node, "rules"), lane)


def _marked(function: ast.FunctionDef, marker: str) -> tuple[str, ...]:
    """The words that a decorator `@pytest.mark.MARKER(...)` has."""
    calls = (item for item in function.decorator_list if isinstance(item, ast.Call))
    return tuple(
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == marker
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    )
