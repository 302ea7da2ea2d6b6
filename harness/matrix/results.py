# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of a matrix's cells: kept on disk as they end, joined where several machines ran some each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.case import Case, Outcome, Verdict
from harness.errors import UsageError
from harness.exchange import decode, encode
from harness.matrix import oracle
from harness.matrix.plan import Cell, Plan
from harness.store import digest

ENDING = ".cell.json"
# How the reason begins where the kernel that goes refuses, so that it never went.
BEFORE = ("kexec.load:", "kexec.reboot:", "liveupdate.")


@dataclass(frozen=True, slots=True)
class Result:
    """A cell that was run. outcome and text: as the oracle judges what the verdict says; owed: by the
    kernels.
    """

    name: str
    row: str
    column: str
    outcome: Outcome
    text: str
    owed: oracle.Owed
    why: str
    seconds: float
    case: Case
    verdict: Verdict


def default_root() -> Path:
    """$LUH_MATRICES, or luh/matrices in the user's state directory (XDG base directory specification)."""
    named = os.environ.get("LUH_MATRICES")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(named).absolute() if named else state / "luh" / "matrices"


def directory(root: Path, plan: Plan) -> Path:
    """Where the results of this very plan are kept, so that it goes on there when it was interrupted."""
    key = digest(json.dumps([encode(cell.case) for cell in plan.cells]))
    path = root / f"{plan.name}-{key[:8]}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def judged(cell: Cell, verdict: Verdict, needs: frozenset[str] | None) -> Result:
    """The result of a cell. needs: the handlers that its scenarios use, None for all."""
    expected = oracle.Expectation(oracle.Owed.WORK, "")
    judgement = oracle.Judgement(verdict.outcome, verdict.reason)
    if verdict.kernel and verdict.next_kernel:
        expected = oracle.expect(dict(verdict.kernel.abi), dict(verdict.next_kernel.abi), needs)
        judgement = oracle.judge(expected, verdict, consoles(verdict))
    seconds = sum(phase.seconds for phase in verdict.phases)
    return Result(
        name=cell.name,
        row=cell.row,
        column=cell.column,
        outcome=judgement.outcome,
        text=judgement.text,
        owed=expected.owed,
        why=expected.why,
        seconds=seconds,
        case=cell.case,
        verdict=verdict,
    )


def consoles(verdict: Verdict) -> str:
    """The consoles of all scenarios of a run, as one text."""
    files = sorted(verdict.directory.glob("*/console.log"))
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def save(place: Path, result: Result) -> None:
    path = place / f"{digest(result.name)[:12]}{ENDING}"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(encode(result)) + "\n", encoding="utf-8")
    draft.rename(path)


def load(places: Iterable[Path]) -> list[Result]:
    """All results in these directories and below; of a cell that is there twice, the one that was found last.

    Raises UsageError for a directory that is not there or a file that is none of ours.
    """
    found: dict[str, Result] = {}
    for place in places:
        if not place.is_dir():
            raise UsageError(f"there is no directory {place}")
        for file in sorted(place.rglob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns):
            try:
                result = decode(Result, json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise UsageError(f"{file} is no cell's result: {error}") from error
            found[result.name] = result
    return list(found.values())


def clear(place: Path) -> None:
    for file in place.glob("cell-*"):
        file.unlink()
    for file in place.glob(f"*{ENDING}"):
        file.unlink()


def worst(results: Sequence[Result]) -> Outcome:
    order = (Outcome.SKIP, Outcome.PASS, Outcome.FAIL, Outcome.BROKEN)
    return max((one.outcome for one in results), key=order.index, default=Outcome.SKIP)


# ---- for whoever runs a fleet -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Qualification:
    """A verdict on a pair that somebody can act on. safe: the update can be done."""

    safe: bool
    headline: str
    reasons: tuple[str, ...]


def qualify(results: Sequence[Result]) -> Qualification:
    """What a pair's cells mean for virtual machines that run on it."""
    broken = [one for one in results if one.outcome is Outcome.BROKEN]
    failed = [one for one in results if one.outcome is Outcome.FAIL]
    refused = [one for one in results if one.outcome is Outcome.PASS and one.owed is not oracle.Owed.WORK]
    skipped = [one for one in results if one.outcome is Outcome.SKIP]
    if failed and all(one.text.startswith(BEFORE) for one in failed):
        headline = "refused before anything is lost: the virtual machines go on where they are"
        return Qualification(False, headline, _reasons(failed))
    if failed:
        headline = "would lose the VMs, or worse: do not update this way"
        return Qualification(False, headline, _reasons(failed))
    if refused:
        return Qualification(False, _REFUSED[refused[0].owed], _reasons(refused))
    if broken:
        headline = "unknown: the harness or its machine failed, which says nothing of the kernels"
        return Qualification(False, headline, _reasons(broken))
    if not results or len(skipped) == len(results):
        headline = "cannot live-update: the kernels lack what it takes"
        return Qualification(False, headline, _reasons(skipped))
    return Qualification(True, f"safe to go: {len(results) - len(skipped)} checks passed", _reasons(skipped))


_REFUSED = {
    oracle.Owed.IGNORE: "would lose the VMs: the next kernel ignores the handover, and boots without them",
    oracle.Owed.PANIC: "would lose the VMs: the next kernel panics before it takes them over",
    oracle.Owed.REFUSE: "would lose the VMs: the next kernel comes up, but cannot take them over",
}


def _reasons(results: Sequence[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{one.column or one.name}: {one.text}" for one in results))
