# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines -> the tests that they report, by KTAP version 1 (Documentation/dev-tools/ktap.rst) and TAP 13. Pure.

What kernel and tests print between the lines is kept with the test that comes next; a kernel's time stamp
before a line of KTAP is looked through. Nothing is an error that a reader could miss: numbers that are out of
order, a plan that was not kept, and a test that began and never ended are in the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

KERNEL_TIME = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ")
VERSION = re.compile(r"(K?TAP) version \d+\s*")
PLAN = re.compile(r"1\.\.(?P<count>\d+)(?:\s*#\s*(?P<directive>.*))?\s*")
RESULT = re.compile(r"(?P<ok>ok|not ok) +(?P<number>\d+)\b(?:\s+-)?\s*(?P<text>.*)")
DIRECTIVE = re.compile(
    r"(?<!\\)#\s*(?P<kind>SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b[:\s]*(?P<reason>.*)", re.I
)
SUBTEST = re.compile(r"# Subtest:\s*(?P<name>.*)")
BAIL = re.compile(r"Bail out!\s*(?P<reason>.*)")


class Status(StrEnum):
    """What came of a test. EXPECTED: it failed, and was said to (TODO, XFAIL). CRASHED: it never ended."""

    OK = "ok"
    FAILED = "not ok"
    SKIPPED = "skipped"
    EXPECTED = "expected failure"
    CRASHED = "crashed"


BAD = (Status.FAILED, Status.CRASHED)


@dataclass(frozen=True, slots=True)
class Test:
    """A test and those inside it. reason: of its directive. log: the lines that came before its own."""

    name: str
    status: Status
    reason: str = ""
    subtests: tuple[Test, ...] = ()
    log: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether it failed, or one inside it did, whatever it says of itself."""
        return self.status in BAD or any(test.bad for test in self.subtests)


@dataclass(frozen=True, slots=True)
class Report:
    """A whole document. planned: how many tests were to come, None where that is not said.

    bail: why the program gave up, skip: why it planned nothing; "" where neither is. log: what came last.
    """

    tests: tuple[Test, ...]
    planned: int | None
    errors: tuple[str, ...]
    bail: str = ""
    skip: str = ""
    log: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        return bool(self.bail or self.errors) or any(test.bad for test in self.tests)

    @property
    def leaves(self) -> tuple[Test, ...]:
        """The tests that have none inside them, named by their way down ("suite.case")."""
        return tuple(leaf for test in self.tests for leaf in _leaves(test, ""))


def parse(lines: Iterable[str]) -> Report:
    """The report that the lines make; lines that are no KTAP do no harm."""
    reader = _Reader()
    for line in lines:
        reader.feed(line)
    return reader.end()


@dataclass(slots=True)
class _Block:
    """The tests of one depth while they come in. indent: of its lines, in columns."""

    indent: int
    name: str = ""
    planned: int | None = None
    skip: str = ""
    tests: list[Test] = field(default_factory=list)

    def broken_plan(self) -> str:
        if self.planned is None or self.planned == len(self.tests):
            return ""
        where = f"{self.name}: " if self.name else ""
        return f"{where}{self.planned} tests planned, {len(self.tests)} reported"


class _Reader:
    """The blocks that are open, from the outermost to the innermost."""

    def __init__(self) -> None:
        self._open = [_Block(0)]
        self._log: list[str] = []
        self._errors: list[str] = []
        self._bail = ""

    def feed(self, raw: str) -> None:
        line = KERNEL_TIME.sub("", raw.rstrip())
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if VERSION.fullmatch(text):
            self._block(indent)
        elif match := PLAN.fullmatch(text):
            self._plan(self._block(indent), match)
        elif match := RESULT.fullmatch(text):
            self._result(indent, match)
        elif match := SUBTEST.fullmatch(text):
            # Below a version line it is indented as that is; where it stands alone the lines after it are.
            self._block(indent).name = match["name"].strip()
        elif match := BAIL.fullmatch(text):
            self._bail = match["reason"].strip() or "without a reason"
        elif text:
            self._log.append(text)

    def end(self) -> Report:
        while len(self._open) > 1:
            inner = self._close()
            self._open[-1].tests.append(_crashed(inner))
        outer = self._open[0]
        # Who bailed out did not keep the plan, and has said so.
        if problem := "" if self._bail else outer.broken_plan():
            self._errors.append(problem)
        return Report(
            tests=tuple(outer.tests),
            planned=outer.planned,
            errors=tuple(self._errors),
            bail=self._bail,
            skip=outer.skip,
            log=tuple(self._log),
        )

    def _block(self, indent: int) -> _Block:
        """The block of that depth: the innermost one, or a new one inside it."""
        while self._open[-1].indent > indent:
            inner = self._close()
            self._open[-1].tests.append(_crashed(inner))
        if self._open[-1].indent < indent:
            self._open.append(_Block(indent))
        return self._open[-1]

    def _close(self) -> _Block:
        block = self._open.pop()
        if problem := block.broken_plan():
            self._errors.append(problem)
        return block

    def _plan(self, block: _Block, match: re.Match[str]) -> None:
        if block.planned is not None:
            self._errors.append(f"a second plan: {match[0].strip()}")
        block.planned = int(match["count"])
        directive = match["directive"] or ""
        if block.planned == 0:
            block.skip = re.sub(r"^SKIP\b[:\s]*", "", directive, flags=re.I) or "no tests"

    def _result(self, indent: int, match: re.Match[str]) -> None:
        inside: tuple[Test, ...] = ()
        while self._open[-1].indent > indent:
            inner = self._close()
            if self._open[-1].indent <= indent:
                inside = tuple(inner.tests)
            else:
                self._open[-1].tests.append(_crashed(inner))
        block = self._block(indent)
        expected = len(block.tests) + 1
        if int(match["number"]) != expected:
            self._errors.append(f"test number {match['number']} where {expected} was to come")
        name, status, reason = _read(match["ok"] == "ok", match["text"])
        block.tests.append(Test(name or f"test {expected}", status, reason, inside, tuple(self._log)))
        self._log.clear()


def _read(ok: bool, text: str) -> tuple[str, Status, str]:
    """Name, status and reason that the rest of a result's line says."""
    found = DIRECTIVE.search(text)
    if not found:
        # What kunit and others put behind a bare hash are figures, and no part of the name.
        name = re.split(r"(?<!\\)\s#", text)[0]
        return name.strip(), Status.OK if ok else Status.FAILED, ""
    name, kind, reason = text[: found.start()].strip(), found["kind"].upper(), found["reason"].strip()
    if kind == "SKIP":
        return name, Status.SKIPPED, reason
    if kind in ("TODO", "XFAIL"):
        # kselftest's "ok # XFAIL" is one that failed as it had to.
        return name, Status.OK if ok and kind == "TODO" else Status.EXPECTED, reason
    return name, Status.OK if ok else Status.FAILED, reason or kind.lower()


def _crashed(block: _Block) -> Test:
    """The test whose block was begun and whose own result never came."""
    return Test(block.name or "an unnamed test", Status.CRASHED, "it never ended", tuple(block.tests))


def _leaves(test: Test, above: str) -> Iterator[Test]:
    name = f"{above}.{test.name}" if above else test.name
    if not test.subtests:
        yield Test(name, test.status, test.reason, (), test.log)
    for inner in test.subtests:
        yield from _leaves(inner, name)
    if test.subtests and test.status in BAD and not any(inner.bad for inner in test.subtests):
        yield Test(name, test.status, test.reason or "though all inside it passed", (), test.log)
