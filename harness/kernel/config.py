# SPDX-License-Identifier: GPL-2.0-or-later
"""The third stage: fragments on tinyconfig, and the proof that what they ask for is what came out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import command
from harness.case import Kconfig, PatchedTree, Progress, Update, waiting
from harness.deadline import Deadline
from harness.errors import ConfigError, UsageError
from harness.kernel import kconfig, toolchain, trees
from harness.store import Store, digest, locked

RESOLVE_SECONDS = 600.0
# A comment before an option: a tree that does not know the option at all is configured without it.
OPTIONAL = "# Optional"
UNKNOWN = "unknown"
LINE = re.compile(r"(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)\s*")
# What `make tinyconfig` reads of a tree besides its Kconfig files, and the files that those name.
MACHINERY = ("Makefile", "arch/x86/Makefile*", "arch/x86/configs/*", "kernel/configs/*", "scripts/**/*")
NAMED = re.compile(r"\$\(srctree\)/([\w./-]+)")


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a fragment; value is "n" for an option that is to be off.

    optional: it is not missed where the tree does not know it.
    """

    name: str
    value: str
    fragment: Path
    line: int
    optional: bool = False


def resolve(
    tree: PatchedTree,
    fragments: tuple[Path, ...],
    store: Store,
    progress: Progress,
    base: Path | None = None,
) -> Kconfig:
    """The configuration that the fragments make of the tree's tinyconfig; later fragments win.

    base: a .config that takes tinyconfig's place, completed by olddefconfig.

    Merged with the tree's own scripts/kconfig/merge_config.sh. Raises ConfigError that names every option
    that was asked for and did not come out so, and why; UsageError for a line that is no option.
    """
    requests = _requests(fragments)
    deadline = Deadline.after(RESOLVE_SECONDS, "configuring the kernel")
    asked = (toolchain.identity(), *fragments, *((b"base", base) if base else ()))

    waits = waiting(progress, "config", "configures this kernel")

    def resolved(draft: Path) -> None:
        # Most edits of a tree are of code, which no configuration reads.
        with trees.still(tree, deadline):
            content = digest(*_read(tree.path), *asked)
        same = store.produce(
            "resolved",
            content,
            lambda inner: _make(tree, requests, fragments, base, store, inner, deadline, progress),
            deadline=deadline,
            waits=waits,
        )
        for name in ("config", UNKNOWN):
            shutil.copy(same / name, draft)

    key = digest(tree.digest, *asked)
    entry = store.produce("config", key, resolved, deadline=deadline, waits=waits)
    record = entry / UNKNOWN
    told = _told(len(requests), record.read_text(encoding="utf-8").split() if record.exists() else [])
    told = told if requests or not base else base.name
    progress(Update("config", told, done=1.0, finished=True))
    return Kconfig(entry / "config", digest(entry / "config"))


def _read(tree: Path) -> Iterator[str | Path]:
    """The names and files of a tree that its configuration depends on (Documentation/kbuild/kconfig.rst)."""
    files = {
        Path(folder, name)
        for folder, _, names in os.walk(tree)
        for name in names
        if name.startswith("Kconfig")
    }
    for kconfig_file in tuple(files):
        text = kconfig_file.read_text(encoding="utf-8", errors="replace")
        files.update(tree / name for name in NAMED.findall(text))
    for pattern in MACHINERY:
        files.update(tree.glob(pattern))
    for file in sorted(file for file in files if file.is_file()):
        yield str(file.relative_to(tree))
        yield file


def _told(asked: int, unknown: list[str]) -> str:
    if not unknown:
        return f"{asked} {'option' if asked == 1 else 'options'} asked for and given"
    return f"{asked - len(unknown)} options given; this tree does not know {', '.join(unknown)}"


def values(config: Path) -> dict[str, str]:
    """The options that are on in a .config: their names without CONFIG_, strings with their quotes."""
    pairs = (LINE.fullmatch(line) for line in config.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in pairs if match and match[1]}


def _requests(fragments: Iterable[Path]) -> tuple[Request, ...]:
    """What the fragments ask for, by the last line for each option."""
    found: dict[str, Request] = {}
    for path in fragments:
        before = ""
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := LINE.fullmatch(text):
                name = match[1] or match[3]
                found[name] = Request(name, match[2] or "n", path, number, before.startswith(OPTIONAL))
            elif text.strip() and not text.startswith("#"):
                raise UsageError(
                    f"{path}:{number}: {text.strip()!r} is no option", hint="write CONFIG_NAME=value"
                )
            before = text
    return tuple(found.values())


def _make(
    tree: PatchedTree,
    requests: tuple[Request, ...],
    fragments: tuple[Path, ...],
    base: Path | None,
    store: Store,
    draft: Path,
    deadline: Deadline,
    progress: Progress,
) -> None:
    # The kernel's configuration programs are compiled once for a tree, so they stay in a workspace.
    work = store.workspace("kconfig", digest(str(tree.path)))
    waits = waiting(progress, "config", "configures the same tree")
    with locked(work / "lock", deadline, waits=waits), trees.still(tree, deadline):
        _start(tree, base, work, deadline, progress)
        shutil.copy(work / ".config", work / "base")
        if fragments:
            _merge(tree, fragments, work, deadline, progress)
        unknown = _check(tree, requests, values(work / ".config"))
        (draft / UNKNOWN).write_text("\n".join(unknown), encoding="utf-8")
        shutil.copy(work / ".config", draft / "config")


def _merge(
    tree: PatchedTree, fragments: tuple[Path, ...], work: Path, deadline: Deadline, progress: Progress
) -> None:
    """Merge the fragments on work/base, to work/.config."""
    progress(Update("config", "merging " + ", ".join(path.stem for path in fragments)))
    # merge_config.sh splits its arguments at spaces, so it gets copies with plain names.
    copies = [work / f"{number:02}.config" for number in range(len(fragments))]
    for path, copy in zip(fragments, copies, strict=True):
        shutil.copy(path, copy)
    merge = tree.path / "scripts/kconfig/merge_config.sh"
    _run(["sh", str(merge), "-Q", "-O", str(work), str(work / "base"), *map(str, copies)], tree, deadline)


def _start(tree: PatchedTree, base: Path | None, work: Path, deadline: Deadline, progress: Progress) -> None:
    """Make work/.config what the fragments are merged on."""
    target = "olddefconfig" if base else "tinyconfig"
    progress(Update("config", f"{target} of {base.name}" if base else target))
    if base:
        shutil.copy(base, work / ".config")
    _run(toolchain.make(tree.path, work, target), tree, deadline)


def _run(argv: list[str], tree: PatchedTree, deadline: Deadline) -> None:
    done = command.run(argv, cwd=tree.path, env=toolchain.ENVIRONMENT, deadline=deadline, check=False)
    if done.status != 0:
        raise ConfigError(
            "the kernel cannot be configured", hint="`luh doctor` lists what it takes", detail=done.tail
        )


def _check(tree: PatchedTree, requests: tuple[Request, ...], config: dict[str, str]) -> list[str]:
    """The optional ones that the tree does not know; raises ConfigError for all else that is not as asked."""
    missing = [request for request in requests if config.get(request.name, "n") != request.value]
    if not missing:
        return []
    options = kconfig.Tree(tree.path)
    unknown = [one for one in missing if one.optional and one.name not in options.symbols]
    missing = [one for one in missing if one not in unknown]
    if not missing:
        return [f"CONFIG_{one.name}" for one in unknown]
    names = ", ".join(f"CONFIG_{request.name}" for request in missing)
    raise ConfigError(
        f"asked for, but not in the final configuration: {names}",
        hint="add what is unmet to a fragment of the kernel definition, or take the line out",
        detail="\n".join(
            f"{request.fragment}:{request.line}: CONFIG_{request.name}={request.value}: "
            + options.explain(request.name, request.value, config)
            for request in missing
        ),
    )
