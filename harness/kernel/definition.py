# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel definitions: YAML files that say where a kernel comes from, what is added, how it is configured.

    source:                       # the providers to try, in this order
      - debian: linux-source-7.3  # a source package, and the suite that carries it
        suite: trixie-backports
      - tree: ~/src/linux         # or: a directory
      - git: https://host/linux   # or: a repository, and what to fetch from it
        ref: v7.3
      - tarball: linux-7.3.tar.xz # or: a URL or path, and what it must hash to
        sha256: 0123...
    series: 7.3                   # a folder of kernel-patches/, a path with a slash, null, or a list of them
    fragments: [base, qemu]       # from kernel-configs/, or paths with a slash

Paths are relative to the file that names them. The positions of YAML's nodes are kept until everything is
checked, so that each complaint names file, line and field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.case import KernelDefinition, Medium, Provider, Series, Source
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.kernel import trees
from harness.kernel.git import git

GIT_SECONDS = 30.0
LINE = re.compile(r"\d+\.\d+")
SUFFIXES = (".yaml", ".yml")
FIELDS = ("source", "series", "fragments")
# Which field completes which provider's entry, and what it has to look like.
COMPANIONS: dict[Provider, tuple[str, re.Pattern[str], str]] = {
    Provider.GIT: ("ref", re.compile(r"[^\s-]\S*"), "a branch, tag or commit"),
    Provider.DEBIAN: ("suite", re.compile(r"[a-z][a-z0-9-]*"), "a suite, such as trixie-backports"),
    Provider.TARBALL: ("sha256", re.compile(r"[0-9a-fA-F]{64}"), "64 hexadecimal digits"),
}


def known(configs: Path) -> tuple[str, ...]:
    """The names of the kernels that are defined in the directory."""
    return tuple(sorted(path.stem for path in configs.glob("*.yaml")))


def load(name_or_path: str, *, configs: Path, patches: Path) -> KernelDefinition:
    """The definition configs/NAME.yaml, or that in the file named (a path has a slash or ends in .yaml).

    patches: the directory that series are looked up in. Raises UsageError: for an unknown name with the
    nearest ones, for a mistake in the file with its line and field.
    """
    if "/" in name_or_path or name_or_path.endswith(SUFFIXES):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise UsageError(f"no kernel definition {path}", hint="name one of " + ", ".join(known(configs)))
    else:
        path = configs / f"{name_or_path}.yaml"
        if not path.is_file():
            raise UsageError(f"unknown kernel {name_or_path!r}", hint=nearest(name_or_path, known(configs)))
    return _Reader(path, configs, patches).definition()


def series_at(path: Path) -> Series | None:
    """The series that is a folder, an mbox or a maildir at that path, or None."""
    if path.is_dir():
        maildir = (path / "cur").is_dir() and (path / "new").is_dir()
        return Series(Medium.MAIL if maildir else Medium.FOLDER, str(path))
    return Series(Medium.MAIL, str(path)) if path.is_file() else None


def ours(tree: Path, patches: Path) -> Series | None:
    """The project's own series for the version of a kernel tree, or None where it has none for that."""
    dotted = trees.version(tree).split(".")
    return series_at(patches / ".".join(dotted[:2])) if len(dotted) > 1 else None


def lines(patches: Path) -> list[Path]:
    """The folders of the project's own series, one for each line of kernels, the newest line first."""
    found = [path for path in patches.iterdir() if LINE.fullmatch(path.name)]
    return sorted(found, key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)


def below(series: Series) -> Source:
    """The commit that a range of commits starts from; raises UsageError where that is none."""
    deadline = Deadline.after(GIT_SECONDS, "reading a repository")
    first, _, last = series.commits.partition("..")
    trusting = ("-c", "safe.directory=*", "-C", series.location)
    found = git(*trusting, "merge-base", first or "HEAD", last or "HEAD", deadline=deadline, check=False)
    folder = git(
        *trusting, "rev-parse", "--path-format=absolute", "--git-common-dir", deadline=deadline, check=False
    )
    if found.status != 0 or folder.status != 0:
        raise UsageError(
            f"{series.commits} is no range of commits in {series.location}", detail=found.tail or folder.tail
        )
    return Source(Provider.GIT, folder.output.strip(), pin=found.output.strip(), place="below a series")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint that names the candidates that look like a name, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are: {', '.join(names)}" if names else "there are none"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns one file into a definition."""

    path: Path
    configs: Path
    patches: Path

    def definition(self) -> KernelDefinition:
        root = self._compose()
        fields = self._mapping(root, "", FIELDS)
        for required in ("source", "fragments"):
            if required not in fields:
                raise self._mistake(root, required, "is missing")
        return KernelDefinition(
            name=self.path.stem,
            sources=tuple(
                self._source(node, f"source[{index}]")
                for index, node in enumerate(self._sequence(fields["source"], "source"))
            ),
            series=self._all_series(fields["series"]) if "series" in fields else (),
            fragments=tuple(
                self._fragment(node, f"fragments[{index}]")
                for index, node in enumerate(self._sequence(fields["fragments"], "fragments"))
            ),
        )

    def _compose(self) -> yaml.Node:
        try:
            root = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UsageError(f"{self.path}:{line}: not YAML: {error.problem}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"{self.path}: cannot be read: {error}") from error
        if root is None:
            raise UsageError(f"{self.path}:1: the file is empty", hint="copy one from kernel-configs/")
        return root

    def _source(self, node: yaml.Node, field: str) -> Source:
        companions = [name for name, _, _ in COMPANIONS.values()]
        fields = self._mapping(node, field, [*Provider, *companions])
        providers = [provider for provider in Provider if provider in fields]
        if len(providers) != 1:
            raise self._mistake(
                node, field, f"names {len(providers)} providers, not one of " + ", ".join(Provider)
            )
        provider = providers[0]
        location = self._text(fields.pop(provider), f"{field}.{provider}")
        pin = suite = ""
        if companion := COMPANIONS.get(provider):
            name, pattern, wanted = companion
            if name not in fields:
                raise self._mistake(node, f"{field}.{name}", f"is missing: {provider} needs {wanted}")
            value_node = fields.pop(name)
            value = self._text(value_node, f"{field}.{name}")
            if not pattern.fullmatch(value):
                raise self._mistake(value_node, f"{field}.{name}", f"{value!r} is not {wanted}")
            pin, suite = ("", value) if provider is Provider.DEBIAN else (value, "")
        for name, extra in fields.items():
            raise self._mistake(extra, f"{field}.{name}", f"does not belong to {provider}")
        if provider is Provider.TREE or (provider is Provider.TARBALL and "://" not in location):
            location = str(self._relative(location))
        return Source(
            provider, location, pin=pin.lower() if provider is Provider.TARBALL else pin, suite=suite
        )

    def _all_series(self, node: yaml.Node) -> tuple[Series, ...]:
        if node.tag == "tag:yaml.org,2002:null":
            return ()
        if isinstance(node, yaml.SequenceNode):
            nodes = enumerate(self._sequence(node, "series"))
            return tuple(self._series(one, f"series[{index}]") for index, one in nodes)
        return (self._series(node, "series"),)

    def _series(self, node: yaml.Node, field: str) -> Series:
        name = self._text(node, field)
        found = series_at(self._relative(name) if "/" in name else self.patches / name)
        if found is None:
            names = [entry.name for entry in self.patches.glob("*") if entry.is_dir()]
            raise self._mistake(node, field, f"there is no series {name!r}", nearest(name, names))
        return found

    def _fragment(self, node: yaml.Node, field: str) -> Path:
        name = self._text(node, field)
        if "/" in name:
            path = self._relative(name)
        else:
            path = self.configs / f"{name.removesuffix('.config')}.config"
        if not path.is_file():
            names = [entry.stem for entry in self.configs.glob("*.config")]
            raise self._mistake(node, field, f"there is no fragment {name!r}", nearest(name, names))
        return path

    def _relative(self, name: str) -> Path:
        return (self.path.absolute().parent / Path(name).expanduser()).resolve()

    def _mapping(self, node: yaml.Node, field: str, allowed: Iterable[str]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._mistake(node, field, "must be a mapping of names to values")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._text(key, field or "a field's name")
            place = f"{field}.{name}" if field else name
            if name not in allowed:
                raise self._mistake(key, place, "is no field", nearest(name, allowed))
            if name in found:
                raise self._mistake(key, place, "is there twice")
            found[name] = value
        return found

    def _sequence(self, node: yaml.Node, field: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self._mistake(node, field, "must be a list of at least one entry")
        return list(node.value)

    def _text(self, node: yaml.Node, field: str) -> str:
        """A scalar as it is written: `7.3` is the name of a series, not a number."""
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise self._mistake(node, field, "must be text")
        return str(node.value).strip()

    def _mistake(self, node: yaml.Node, field: str, problem: str, hint: str = "") -> UsageError:
        line = node.start_mark.line + 1
        return UsageError(f"{self.path}:{line}: {field or 'the file'}: {problem}", hint=hint)
