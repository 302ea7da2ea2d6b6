# SPDX-License-Identifier: GPL-2.0-or-later
"""The first stage: a kernel's source on disk, from the first provider that can give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.case import Progress, Provider, Source, SourceTree, Update
from harness.errors import InfraError, UsageError
from harness.kernel import debian, mirror, repository, tarball
from harness.store import Store, digest, disk_errors

PROVIDERS: Mapping[Provider, Callable[[Source, Store, Progress], SourceTree]] = {
    Provider.TREE: mirror.checkout,
    Provider.GIT: repository.checkout,
    Provider.DEBIAN: debian.checkout,
    Provider.TARBALL: tarball.checkout,
}


def checkout(sources: tuple[Source, ...], store: Store, progress: Progress) -> SourceTree:
    """The kernel tree that the first of the sources gives that can be had.

    The source that gave a tree for this list before goes first: a machine that had to fall back once does
    not ask the network again. Raises UsageError for a source that cannot be meant, and one InfraError that
    lists every failure where none works.
    """
    note = store.workspace("choice", digest(*(repr(source) for source in sources))) / "location"
    before = note.read_text(encoding="utf-8") if note.exists() else ""
    failures: list[InfraError] = []
    for source in sorted(sources, key=lambda source: source.location != before):
        try:
            with disk_errors(store.root):
                tree = PROVIDERS[source.provider](source, store, progress)
        except InfraError as error:
            failures.append(error)
            progress(Update("source", error.message))
            continue
        if source.location != before:
            note.write_text(source.location, encoding="utf-8")
        progress(Update("source", f"Linux {tree.version}: {tree.origin}", done=1.0, finished=True))
        return tree
    if not failures:
        raise UsageError("the kernel definition names no source")
    raise _none_works(failures)


def _none_works(failures: list[InfraError]) -> InfraError:
    if len(failures) == 1:
        return failures[0]
    return InfraError(
        f"the kernel's source cannot be had: {len(failures)} places tried",
        hint=failures[0].hint,
        detail="\n".join(f"{failure.message}\n{failure.detail}".strip() for failure in failures),
    )
