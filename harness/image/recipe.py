# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes into a guest image, as a YAML file in guest-images/ describes it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from harness.errors import UsageError

FIELDS = ("init", "payloads", "modules", "without", "files", "programs", "shell")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A guest image to be built.

    init: the C source of pid 1. payloads: the folder of the L2 payloads' sources, each `*.S` a payload.
    modules: what the agent's imports do not bring in by themselves. without: modules left out although
    something would like them. files: further files, by their absolute path in the guest. programs: those of
    this machine that go in, with their libraries, by that path. shell: the name of a busybox of this machine;
    the guest gets it with a link for each of its applets, and `python3` and `agent` to type; "" for none.
    """

    name: str
    init: Path
    payloads: Path
    modules: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    files: tuple[tuple[PurePosixPath, Path], ...] = ()
    programs: tuple[tuple[PurePosixPath, str], ...] = ()
    shell: str = ""


def known(recipes: Path) -> tuple[str, ...]:
    """The names of the recipes in a folder."""
    return tuple(sorted(path.stem for path in recipes.glob("*.yaml")))


def load(name: str, recipes: Path) -> Recipe:
    """The recipe `name` of the folder `recipes`; its paths are relative to that folder.

    Raises UsageError that names the nearest recipes, or the file, line and field of a mistake.
    """
    path = recipes / f"{name}.yaml"
    if name not in known(recipes):
        near = difflib.get_close_matches(name, known(recipes), cutoff=0.4) or known(recipes)
        raise UsageError(f"unknown image recipe {name!r}", hint=f"did you mean {' or '.join(near)}?")
    return _Reader(path).recipe()


class _Reader:
    """Reads one file; keeps the YAML nodes, as they know their lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, yaml.Node] = {}
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UsageError(f"{path}:{line}: not YAML: {error.problem}") from error
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}:1: a recipe is a mapping of {', '.join(FIELDS)}")
        for key, value in node.value:
            if key.value not in FIELDS:
                self.fail(key, f"unknown field {key.value!r}", f"fields are {', '.join(FIELDS)}")
            self.fields[key.value] = value

    def recipe(self) -> Recipe:
        return Recipe(
            name=self.path.stem,
            init=self.existing("init"),
            payloads=self.existing("payloads"),
            modules=self.strings("modules"),
            without=self.strings("without"),
            files=tuple((guest, self.resolve("files", node)) for guest, node in self.by_path("files")),
            programs=tuple((guest, self.word("programs", node)) for guest, node in self.by_path("programs")),
            shell=self.word("shell", self.fields["shell"]) if "shell" in self.fields else "",
        )

    def fail(self, node: yaml.Node, message: str, hint: str = "") -> None:
        raise UsageError(f"{self.path}:{node.start_mark.line + 1}: {message}", hint=hint)

    def existing(self, field: str) -> Path:
        node = self.fields.get(field)
        if node is None:
            raise UsageError(f"{self.path}:1: the field {field!r} is missing")
        return self.resolve(field, node)

    def resolve(self, field: str, node: yaml.Node) -> Path:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"{field}: a path is expected")
        path = self.path.parent / str(node.value)
        if not path.exists():
            self.fail(node, f"{field}: {path} does not exist")
        return path

    def strings(self, field: str) -> tuple[str, ...]:
        node = self.fields.get(field)
        if node is None:
            return ()
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(item, yaml.ScalarNode) for item in items) or items == [node]:
            self.fail(node, f"{field}: a list of names is expected")
        return tuple(str(item.value) for item in items)

    def word(self, field: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"{field}: the name of a program is expected")
        return str(node.value)

    def by_path(self, field: str) -> list[tuple[PurePosixPath, yaml.Node]]:
        """A mapping of guest paths to something, in the order of the paths."""
        node = self.fields.get(field)
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{field}: a mapping of guest paths is expected")
        pairs = []
        for key, value in node.value:
            guest = PurePosixPath(str(key.value))
            if not guest.is_absolute() or ".." in guest.parts:
                self.fail(key, f"{field}: {guest} is not an absolute path in the guest")
            pairs.append((guest, value))
        return sorted(pairs, key=lambda pair: pair[0])
