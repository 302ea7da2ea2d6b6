# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check of a series does with each patch, composed of the stages (check_series.Workshop)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import attempt, check_series
from harness.case import (
    Case,
    CompilerWarning,
    KernelDefinition,
    Progress,
    SourceTree,
    Verdict,
    silent,
)
from harness.check_series import Patch, Row
from harness.deadline import Deadline
from harness.exchange import decode, encode
from harness.kernel import build, checkpatch, patches, series, source, toolchain
from harness.layout import Layout
from harness.store import Store, digest

KEEP_SECONDS = 60.0


@dataclass(slots=True)
class Workshop:
    """Builds in the store, leaves the traces of what it boots below `runs`, and keeps rows in the store."""

    layout: Layout
    store: Store
    runs: Path
    _sources: dict[KernelDefinition, SourceTree] = field(default_factory=dict)

    def tree(self, kernel: KernelDefinition) -> str:
        found = self._source(kernel)
        return f"Linux {found.version}: {found.origin}"

    def patches(self, kernel: KernelDefinition, progress: Progress) -> tuple[Patch, ...]:
        return tuple(
            Patch(path, patches.subject(path), frozenset(series.touched(path)))
            for path in patches.gather(kernel.series, self.store, progress)
        )

    def build(self, kernel: KernelDefinition, progress: Progress) -> tuple[CompilerWarning, ...]:
        return build.warned(attempt.build_kernels((kernel,), self.store, attempt.Timeline(progress))[kernel])

    def style(self, kernel: KernelDefinition, patch: Path) -> tuple[str, ...]:
        return checkpatch.complaints(self._source(kernel), patch)

    def attempt(self, case: Case, progress: Progress) -> Verdict:
        once = attempt.make(layout=self.layout, store=self.store, runs=self.runs, progress=progress)
        return once(case)

    def recall(self, case: Case, asked: Sequence[str]) -> Row | None:
        entry = self.store.find("checked", self._key(case, asked))
        if entry is None:
            return None
        with suppress(ValueError, KeyError, TypeError, OSError):
            return decode(Row, json.loads((entry / "row.json").read_text(encoding="utf-8")))
        return None

    def keep(self, case: Case, asked: Sequence[str], row: Row) -> None:
        def write(draft: Path) -> None:
            (draft / "row.json").write_text(json.dumps(encode(row)) + "\n", encoding="utf-8")

        deadline = Deadline.after(KEEP_SECONDS, "keeping what was found out")
        self.store.produce("checked", self._key(case, asked), write, deadline=deadline)

    def _key(self, case: Case, asked: Sequence[str]) -> str:
        """All that a row depends on: sources, patches, configuration, tools, scenarios, and this program."""
        kernel = case.kernel
        found = patches.gather(kernel.series, self.store, silent)[: kernel.upto]
        files = [path for path in (*kernel.fragments, kernel.config) if path]
        machine = (case.recipe, repr(case.machine), str(case.seed), *case.scenarios)
        return digest(
            self._source(kernel).digest,
            *found,
            *files,
            toolchain.identity(),
            *kernel.watched,
            *machine,
            *asked,
            _program(self.layout),
        )

    def _source(self, kernel: KernelDefinition) -> SourceTree:
        plain = replace(kernel, upto=None, watched=())
        if plain not in self._sources:
            self._sources[plain] = source.checkout(plain.sources, self.store, silent)
        return self._sources[plain]


def _program(layout: Layout) -> str:
    """The digest of the scenarios and of this program, which decide what is a failure."""
    state = hashlib.sha256()
    for folder in (layout.scenarios, layout.recipes, Path(check_series.__file__).parent):
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("*.c"))):
            state.update(path.read_bytes())
    return state.hexdigest()
