# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel is meant: the words for it, and the definition that they come to."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from harness.case import KernelDefinition, Provider, Source
from harness.errors import UsageError
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL


def add(parser: argparse.ArgumentParser) -> None:
    """--kernel, --tree and --series."""
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
    group.add_argument(
        "--series",
        metavar="DIR|ours|none",
        help="patches to apply: a folder of your own, ours, or none (the definition's; with --tree: none)",
    )


def chosen(options: argparse.Namespace) -> KernelDefinition:
    """The kernel that the options describe."""
    defined = load(options.kernel)
    series = _series(options.series, defined) if options.series else defined.series
    if options.tree is None:
        return replace(defined, series=series)
    tree = options.tree.expanduser().absolute()
    if not (tree / "Kconfig").is_file() or not (tree / "Makefile").is_file():
        raise UsageError(f"{tree} is no kernel tree", hint="name the directory that has Kconfig and Makefile")
    source = Source(Provider.TREE, str(tree))
    return replace(defined, name=tree.name, sources=(source,), series=series if options.series else None)


def load(name: str) -> KernelDefinition:
    """The definition of that name, or in that file."""
    from harness.kernel import definition

    layout = Layout.here()
    return definition.load(name, configs=layout.configs, patches=layout.patches)


def _series(word: str, defined: KernelDefinition) -> Path | None:
    if word == "none":
        return None
    if word == "ours":
        return defined.series or load(DEFAULT_KERNEL).series
    path = Path(word).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(f"there is no series {word!r}", hint="name a folder of patches, ours, or none")
    return path
