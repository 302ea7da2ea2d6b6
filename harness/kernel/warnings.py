# SPDX-License-Identifier: GPL-2.0-or-later
"""What W=1 warns of in some files: their objects in an output directory, and what make says of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.case import CompilerWarning

OBJECT = re.compile(r"  (?:CC|AS)\s+(?:\[M\]\s+)?(\S+)")
# The compiler's and objtool's, then kernel-doc's.
WARNINGS = (
    re.compile(r"(?P<file>[^\s:]+)(?::(?P<line>\d+)(?::\d+)?)?: warning: (?P<text>.*)"),
    re.compile(r"Warning: (?P<file>[^\s:]+):(?P<line>\d+) (?P<text>.*)"),
)
# objtool gives offsets, which every edit moves.
OFFSET = re.compile(r"\+0x[0-9a-f]+")
SOURCE = re.compile(r"^source_(\S+) := (\S+)$", re.MULTILINE)


def objects(output: Path, link: str, watched: Iterable[str]) -> list[str]:
    """The objects that were compiled from the watched files, as make calls them.

    kbuild has written down next to each object what it comes from (scripts/Makefile.build). link: what the
    tree's directory is called there.
    """
    wanted = {f"{link}/{name}" for name in watched if name.endswith((".c", ".S"))}
    return sorted(name for name, source in _sources(output) if source in wanted)


def _sources(output: Path) -> Iterator[tuple[str, str]]:
    for record in output.rglob(".*.o.cmd"):
        if match := SOURCE.search(record.read_text(encoding="utf-8", errors="replace")):
            # arch/x86/kvm/../../../virt/kvm/kvm_main.o is what the kernel's Makefiles call it.
            yield match[1], re.sub(r"[^/]+/\.\./", "", match[2]) if "/../" in match[2] else match[2]


def parse(output: Iterable[str], link: str) -> tuple[CompilerWarning, ...]:
    """The warnings that make's output has; one in a header, which many objects include, counts once.

    The output has to be grouped by target (--output-sync=target).
    """
    found: list[list[CompilerWarning]] = [[]]
    for line in output:
        if OBJECT.fullmatch(line):
            found.append([])
        elif match := next(filter(None, (pattern.fullmatch(line) for pattern in WARNINGS)), None):
            file, text = match["file"].removeprefix(f"{link}/"), OFFSET.sub("", match["text"])
            found[-1].append(CompilerWarning(file, int(match["line"] or 0), text))
    return _once(found)


def _once(found: Sequence[Sequence[CompilerWarning]]) -> tuple[CompilerWarning, ...]:
    most: dict[tuple[str, str], list[CompilerWarning]] = {}
    for said in found:
        for key in Counter((one.file, one.text) for one in said):
            same = [one for one in said if (one.file, one.text) == key]
            if len(same) > len(most.get(key, ())):
                most[key] = same
    return tuple(one for key in sorted(most) for one in most[key])


def write(record: Path, said: Iterable[CompilerWarning]) -> None:
    rows = [(one.file, one.line, one.text) for one in said]
    record.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def read(record: Path) -> tuple[CompilerWarning, ...]:
    return tuple(CompilerWarning(*row) for row in json.loads(record.read_text(encoding="utf-8")))
