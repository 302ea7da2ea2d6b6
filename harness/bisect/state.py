# SPDX-License-Identifier: GPL-2.0-or-later
"""What a search has found so far, on disk, so that one that was interrupted goes on where it stopped.

A directory a search: plan.json (the words that it was started with), rulings.jsonl (each as it came). A
search that is resumed asks the same questions in the same order; those that have an answer cost nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from harness.bisect.judge import Ruling
from harness.errors import InfraError, UsageError
from harness.exchange import decode, encode

PLAN, RULINGS = "plan.json", "rulings.jsonl"


def default_root() -> Path:
    """$LUH_BISECTIONS, or luh/bisections in the user's state directory (XDG base directory specification)."""
    named = os.environ.get("LUH_BISECTIONS")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(named).absolute() if named else state / "luh" / "bisections"


@dataclass(slots=True)
class State:
    """One search's memory. words: what it was started with, in the directory `origin`.

    seconds: how long each ruling took, by key.
    """

    directory: Path
    words: tuple[str, ...]
    origin: Path
    rulings: dict[str, Ruling] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, words: tuple[str, ...]) -> State:
        """A new one; raises InfraError where the disk does not take it."""
        name = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(2)}"
        directory = root / name
        try:
            directory.mkdir(parents=True)
            plan = {"directory": str(Path.cwd()), "words": words}
            (directory / PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
            latest = root / f".latest.{name}"
            latest.symlink_to(name)
            latest.replace(root / "latest")
        except OSError as error:
            raise InfraError(f"cannot write to {root}: {error.strerror}") from error
        return cls(directory, words, Path.cwd())

    @classmethod
    def open(cls, root: Path, name: str) -> State:
        """The one of that name, or the latest for ""; raises UsageError where there is none."""
        directory = (root / (name or "latest")).resolve()
        try:
            plan = json.loads((directory / PLAN).read_text(encoding="utf-8"))
            state = cls(directory, tuple(plan["words"]), Path(plan["directory"]))
        except (OSError, ValueError, KeyError):
            raise UsageError(f"there is no search to resume in {directory}") from None
        rulings = directory / RULINGS
        for line in rulings.read_text(encoding="utf-8").splitlines() if rulings.exists() else ():
            entry = json.loads(line)
            state.rulings[entry["key"]] = decode(Ruling, entry["ruling"])
            state.seconds[entry["key"]] = entry["seconds"]
        return state

    def record(self, key: str, ruling: Ruling, seconds: float) -> None:
        self.rulings[key] = ruling
        self.seconds[key] = seconds
        entry = {"key": key, "seconds": round(seconds, 3), "ruling": encode(ruling)}
        with (self.directory / RULINGS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def usual_seconds(root: Path) -> float | None:
    """The median of what a candidate took in the searches below root, or None where there were none."""
    lines = [line for file in root.glob(f"*/{RULINGS}") for line in file.read_text("utf-8").splitlines()]
    return median(json.loads(line)["seconds"] for line in lines) if lines else None
