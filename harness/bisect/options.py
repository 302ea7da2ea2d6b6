# SPDX-License-Identifier: GPL-2.0-or-later
"""The search among configuration options: which of those that two .configs differ in make a scenario fail.

An option that is asked for may pull in others, or may not be had without them: olddefconfig decides, so what
counts is the .config that a kernel was built with, which is where the difference is read and reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bisect.docket import Docket
from harness.bisect.judge import Answer, Evidence, Ruling, unusable
from harness.bisect.minimize import minimize
from harness.case import Case
from harness.store import digest

LINE = re.compile(r"(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)\s*")


@dataclass(frozen=True, slots=True)
class Change:
    """An option and its value in either .config; "n" for one that is off or not there."""

    name: str
    good: str
    bad: str

    @property
    def text(self) -> str:
        return f"CONFIG_{self.name}: {self.good} -> {self.bad}"


@dataclass(frozen=True, slots=True)
class Options:
    """What a search among options came to. pulled: what else differs with them on, by olddefconfig."""

    culprits: tuple[Change, ...]
    pulled: tuple[Change, ...]
    differing: int
    good: Ruling
    bad: Ruling
    steps: int
    runs: int


def values(config: Path) -> dict[str, str]:
    """The options that are on in a .config, by name."""
    matches = map(LINE.fullmatch, config.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in matches if match and match[1] and match[2] != "n"}


def difference(good: Mapping[str, str], bad: Mapping[str, str]) -> list[Change]:
    names = sorted(good.keys() | bad.keys())
    changes = (Change(name, good.get(name, "n"), bad.get(name, "n")) for name in names)
    return [change for change in changes if change.good != change.bad]


def search(good: Path, bad: Path, case: Case, docket: Docket) -> Options:
    """The smallest set of options that makes the good .config's kernel fail as the bad one's does.

    case: its kernels are the definition to be configured. Raises UsageError where the ends are not as said.
    """
    ruled_bad = docket.confirm_bad("bad", "bad end", bad.name, lambda: (_configured(case, bad),))
    if ruled_bad.answer is not Answer.BAD:
        raise unusable("bad", bad.name, ruled_bad)
    ruled_good = docket.rule("good", "good end", good.name, lambda: (_configured(case, good),))
    if ruled_good.answer is not Answer.GOOD:
        raise unusable("good", good.name, ruled_good)
    start, end = _effective(ruled_good, good), _effective(ruled_bad, bad)
    changes = difference(start, end)
    before = (docket.counted, docket.runs)
    numbers: dict[tuple[Change, ...], Ruling] = {tuple(changes): ruled_bad}

    def makes_it(some: Sequence[Change]) -> bool:
        file = _write(docket.state.directory, start, some)
        step = docket.counted - before[0] + 1
        numbers[tuple(some)] = docket.rule(
            f"config {digest(file)}",
            f"step {step}",
            f"{len(some)} of {len(changes)} options: {_names(some)}",
            lambda: (_configured(case, file),),
        )
        return numbers[tuple(some)].answer is Answer.BAD

    culprits = tuple(minimize(changes, makes_it))
    built = _effective(numbers[culprits], bad) if culprits in numbers else end
    asked = {change.name for change in culprits}
    pulled = tuple(one for one in difference(start, built) if one.name not in asked)
    steps, runs = docket.counted - before[0], docket.runs - before[1]
    return Options(culprits, pulled, len(changes), ruled_good, ruled_bad, steps, runs)


def _names(some: Sequence[Change]) -> str:
    names = ", ".join(change.name for change in some[:3])
    return names + (", ..." if len(some) > 3 else "")


def _configured(case: Case, config: Path) -> Case:
    kernel = replace(case.kernel, config=config, fragments=())
    return replace(case, kernel=kernel, next_kernel=kernel)


def _effective(ruling: Ruling, asked: Path) -> dict[str, str]:
    """What the kernel was really built with."""
    seen: Evidence | None = ruling.failed or ruling.passed
    path = Path(seen.config) if seen and seen.config else asked
    return values(path if path.exists() else asked)


def _write(directory: Path, start: Mapping[str, str], some: Sequence[Change]) -> Path:
    wanted = dict(start) | {change.name: change.bad for change in some}
    lines = [
        f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
        for name, value in sorted(wanted.items())
    ]
    text = "\n".join(lines) + "\n"
    path = directory / "configs" / f"{digest(text)}.config"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
