# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded consoles: how they are kept, and how they are made of a run of tests/console-logs/provocations.py:

    python -m tests.crash.record RUN_DIRECTORY

writes a log for each remark `provoke ...` on the run's consoles: the lines from there on, as console.log has
them, and of those before the ones by which kernels are told apart. At a log's top stands what has to be found
in it, for people to review: what was there before or, for a new log, what the parser says now.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.case import Death, Ending, Finding
from harness.crash.console import BANNER, LAST_WORD, findings

LOGS = Path(__file__).resolve().parents[1] / "console-logs"
MARK, END = "# provoke ", "# the guest died: "
RULE = "---"
MOST_LINES = 220
_LINE = re.compile(r"^ *(-?\d+\.\d+) ([|#]) (.*)$")
_ENDING = re.compile(r"(\w+)(?: in (\S+))?")


@dataclass(frozen=True, slots=True)
class Log:
    """A recorded console. kernel: where it is from. ending, function: how the machine died and where, or None
    and "". expected: of each finding kind, kernel, count and title."""

    kernel: str
    ending: Ending | None
    function: str
    expected: tuple[str, ...]
    lines: tuple[tuple[float, str], ...]

    def found(self) -> tuple[Finding, ...]:
        return findings(self.lines, self.ending, self.function)


def told(finding: Finding) -> str:
    """A finding as the head of a log has it."""
    return f"{finding.kind}, kernel {finding.kernel}, {finding.count} x: {finding.title}"


def load(path: Path) -> Log:
    head, _, body = path.read_text(encoding="utf-8").partition(f"{RULE}\n")
    fields = [line.partition(": ") for line in head.splitlines()]
    (kernel,) = (value for name, _, value in fields if name == "kernel")
    endings = [value for name, _, value in fields if name == "ending"]
    expected = tuple(value for name, _, value in fields if name == "finding")
    rows = [match for line in body.splitlines() if (match := _LINE.match(line))]
    lines = tuple((float(match[1]), match[3]) for match in rows if match[2] == "|")
    ending, function = None, ""
    if endings and (match := _ENDING.fullmatch(endings[0])):
        last = float(rows[-1][1]) if rows else 0.0
        ending, function = Ending(Death(match[1]), last), match[2] or ""
    return Log(kernel, ending, function, expected, lines)


def cut(console: str) -> Iterator[tuple[str, list[str], str]]:
    """Name, lines and end ("" or what the remark says) of each log in a console.log."""
    rows = console.splitlines()
    end = next((row.partition(END)[2] for row in rows if END in row), "")
    starts = [number for number, row in enumerate(rows) if MARK in row] or [0]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        name = rows[start].partition(MARK)[2] or "boot"
        past = [row for row in rows[:start] if f"] {BANNER}" in row or LAST_WORD in row]
        lines = rows[start : min(stop, start + MOST_LINES)]
        if name != "nothing more" and len(lines) > 1:
            yield name, [*past, *lines], end if stop == len(rows) else ""


def main(run: Path) -> None:
    import json

    from harness.case import Bench
    from harness.exchange import decode
    from harness.kernel.lines import at_address

    bench = decode(Bench, json.loads((run / "bench.json").read_text()))
    folder = LOGS / bench.kernel.name
    folder.mkdir(parents=True, exist_ok=True)
    for console in sorted(run.glob("*/console.log")):
        for name, lines, end in cut(console.read_text(encoding="utf-8")):
            word = console.parent.name.rpartition(".")[2].removeprefix("test_") if name == "boot" else name
            # LKDTM's words are in upper case, and some of ours are the same.
            word = f"lkdtm-{word}" if word.partition(" ")[0].isupper() else word
            path = folder / f"{word.lower().replace(' ', '-').replace('_', '-')}.log"
            head = [f"kernel: {bench.kernel.name}, Linux {bench.kernel.release}"]
            if end:
                death, address = end.split()[:2]
                where = at_address(bench.kernel, int(address, 16))
                head.append(f"ending: {death}" + (f" in {where}" if where else ""))
            body = "\n".join((*head, RULE, *lines)) + "\n"
            known = load(path).expected if path.exists() else None
            path.write_text(body, encoding="utf-8")
            expected = known if known is not None else [told(one) for one in load(path).found()]
            if not expected:
                path.unlink()
                continue
            head += [f"finding: {one}" for one in expected]
            path.write_text("\n".join((*head, RULE, *lines)) + "\n", encoding="utf-8")
            print(path.relative_to(LOGS), *head[1:], sep="\n    ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
