# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the machines are: the words for it, and what they come to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.case import Progress
from harness.errors import UsageError
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE
from harness.store import Store

if TYPE_CHECKING:
    from harness.remote import Place


def add(parser: argparse.ArgumentParser) -> None:
    """--host and --target, and what they need to get there."""
    group = parser.add_argument_group("elsewhere (docs/remote.md)")
    group.add_argument("--host", metavar="ssh://USER@HOST", help="run QEMU on that machine")
    group.add_argument(
        "--target", metavar="ssh://USER@HOST", help="use that machine itself, without QEMU: it really kexecs"
    )
    group.add_argument("--identity", metavar="FILE", type=Path, help="the private key to log in with")
    group.add_argument(
        "--known-hosts", metavar="FILE", type=Path, help="host keys, besides those of ~/.ssh/known_hosts"
    )
    group.add_argument("--host-key", metavar="KEY", default="", help="the server's key: KIND BASE64")


def chosen(options: argparse.Namespace, progress: Progress) -> Place:
    """The place that the options describe."""
    from harness import remote

    if options.host and options.target:
        raise UsageError("--host and --target are two different places", hint="name one of them")
    if not (options.host or options.target):
        return remote.HERE
    if options.gdb:
        raise UsageError("--gdb waits on a socket of this machine", hint="leave out --host and --target")
    if options.vmcore:
        hint = "leave out --host and --target"
        raise UsageError("--vmcore is written by a QEMU of this machine", hint=hint)
    if options.host and options.keep:
        raise UsageError("--keep is for machines here", hint="leave out --host, or --keep")
    if options.target and options.jobs > 1:
        raise UsageError("--target is one machine, with one scenario at a time", hint="leave out -j")
    from harness.ssh.connection import parse

    where = parse(
        options.host or options.target,
        identity=options.identity,
        known_hosts=options.known_hosts,
        host_key=options.host_key,
    )
    if options.host:
        return remote.host(where, progress)
    return remote.target(where, DEFAULT_RECIPE, Layout.here(), Store.default())
