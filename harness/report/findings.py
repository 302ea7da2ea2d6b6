# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernels of a whole run said against themselves, each problem once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.case import Finding, ScenarioResult
from harness.report import words


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one title. first: the first of them; kernels: after how many kexecs it was seen, in order.

    count: how often it was said, in all kernels and scenarios. scenarios: their names, in their order.
    """

    first: Finding
    kernels: tuple[int, ...]
    count: int
    scenarios: tuple[str, ...]

    @property
    def where(self) -> str:
        """In which kernels, for a person: "the first kernel, after kexec 1"."""
        return ", ".join(f"after kexec {number}" if number else "the first kernel" for number in self.kernels)


def grouped(results: Iterable[ScenarioResult]) -> tuple[Group, ...]:
    """The groups in the order in which their first finding came."""
    seen: dict[str, list[tuple[str, Finding]]] = {}
    for result in results:
        for finding in result.findings:
            seen.setdefault(finding.title, []).append((words.scenario(result.name), finding))
    return tuple(
        Group(
            first=found[0][1],
            kernels=tuple(sorted({finding.kernel for _, finding in found})),
            count=sum(finding.count for _, finding in found),
            scenarios=tuple(dict.fromkeys(name for name, _ in found)),
        )
        for found in seen.values()
    )
