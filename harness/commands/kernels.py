# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel is meant: the words for it, and the definition that they come to."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from harness.case import KernelDefinition, Medium, Provider, Series, Source
from harness.errors import UsageError
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL

RANGE = re.compile(r"(?:(?P<repository>[^:]+):)?(?P<commits>[^:\s]*\.\.[^:\s]*)")
# As it stands in a header, in angle brackets, or in the address of a list's archive.
MESSAGE = re.compile(r"(?:https?://\S*/)?<?(?P<id>[^<>/\s]+@[^<>/\s]+?)>?/?")
FORMS = (
    "a folder of patches, an mbox, a maildir, commits (A..B or REPOSITORY:A..B), a message id, ours, or none"
)


def add(parser: argparse.ArgumentParser) -> None:
    """--kernel, --tree and --series."""
    group = add_tree(parser)
    group.add_argument(
        "--series",
        metavar="SERIES",
        action="append",
        default=[],
        help=f"patches to apply: {FORMS} (the definition's; with --tree: none); several are applied one after"
        " the other",
    )


def add_tree(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--kernel and --tree; returns the group of options that they are in."""
    group = parser.add_argument_group("kernel")
    group.add_argument(
        "--kernel",
        metavar="NAME",
        default=DEFAULT_KERNEL,
        help=f"a definition of kernel-configs/, or a YAML file of your own ({DEFAULT_KERNEL})",
    )
    group.add_argument(
        "--tree", metavar="DIR", type=Path, help="build this kernel tree; it is not written to"
    )
    return group


def chosen(options: argparse.Namespace) -> KernelDefinition:
    """The kernel that the options describe."""
    defined = load(options.kernel)
    tree = _tree(options.tree) if options.tree else None
    series = tuple(one for word in options.series for one in series_of(word, defined, tree))
    if tree is None:
        return replace(defined, series=series if options.series else defined.series)
    return replace(defined, name=tree.name, sources=(Source(Provider.TREE, str(tree)),), series=series)


def to_check(options: argparse.Namespace) -> KernelDefinition:
    """The kernel whose series is to be checked; commits are checked on the one that they start from."""
    from harness.kernel import definition

    words = [options.series] if options.series else []
    defined = chosen(argparse.Namespace(kernel=options.kernel, tree=options.tree, series=words))
    if not words and options.tree:
        raise UsageError("which series?", hint=f"name {FORMS}")
    if (
        len(defined.series) == 1
        and defined.series[0].medium is Medium.RANGE
        and options.kernel == DEFAULT_KERNEL
    ):
        below = definition.below(defined.series[0])
        return replace(defined, name=Path(defined.series[0].location).name, sources=(below,))
    return defined


def load(name: str) -> KernelDefinition:
    """The definition of that name, or in that file."""
    from harness.kernel import definition

    layout = Layout.here()
    return definition.load(name, configs=layout.configs, patches=layout.patches)


def _tree(path: Path) -> Path:
    tree = path.expanduser().absolute()
    if not (tree / "Kconfig").is_file() or not (tree / "Makefile").is_file():
        raise UsageError(f"{tree} is no kernel tree", hint="name the directory that has Kconfig and Makefile")
    return tree


def series_of(word: str, defined: KernelDefinition, tree: Path | None) -> tuple[Series, ...]:
    """What is meant by a word after --series."""
    from harness.kernel import definition

    if word == "none":
        return ()
    if word == "ours":
        found = definition.ours(tree, Layout.here().patches) if tree else None
        return (found,) if found else defined.series or load(DEFAULT_KERNEL).series
    path = Path(word).expanduser().absolute()
    if found := definition.series_at(path):
        return (found,)
    if match := RANGE.fullmatch(word):
        repository = Path(match["repository"]).expanduser().absolute() if match["repository"] else tree
        return (Series(Medium.RANGE, str(repository or Path.cwd()), match["commits"]),)
    if match := MESSAGE.fullmatch(word):
        return (Series(Medium.MESSAGE, match["id"]),)
    raise UsageError(f"there is no series {word!r}", hint=f"name {FORMS}")
