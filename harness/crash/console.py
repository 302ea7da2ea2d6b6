# SPDX-License-Identifier: GPL-2.0-or-later
"""Console lines -> findings: what the kernels say against themselves, and deaths without a word. Pure.

One pass over the lines, whose cost does not depend on what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.case import Death, Ending, Finding
from harness.crash import titles
from harness.crash.frames import plain

BEFORE_LINES = 10
REPORT_LINES = 120
# A report on the console goes on without a pause.
PAUSE_SECONDS = 5.0

BANNER = "Linux version "
LAST_WORD = "kexec_core: Starting new kernel"
RESTART = re.compile(r"reboot: (?:Restarting system|machine restart)")

_TIME = r"\[\s*\d+\.\d+\](?:\[\s*([TC]\d+)\])? ?"
PREFIX = re.compile(rf"^(?:<\d+>)?(?:{_TIME})?")
# A program may have left its line unfinished before the kernel's began.
_LATE_PREFIX = re.compile(_TIME)
# Every first line of a report has one of these; so most lines are done with at a glance.
_HINT = re.compile(
    r"BUG|WARNING: |panic - not|UBSAN: |INFO: |Oops|unreferenced object|LOCKUP"
    r"|protection fault|double fault|divide error|invalid opcode|stack segment|int3: |unchecked MSR"
    r"|usercopy: |KASAN: |refcount_t: "
)
_END = re.compile(r"---\[ end |^ </TASK>$")
_RULE = re.compile(r"^={20,}$")
# Kinds whose report goes on behind its stack.
_LONG = ("kasan", "kfence", "warning", "oops", "bug", "panic", "usercopy", "stall", "lockup", "refcount")
# A CPU that does not run says nothing itself; it is made to show its stack.
_OTHER_CPU = ("lockup", "stall")
_SHOWN = re.compile(r"NMI backtrace for cpu \d+")
# What a kernel panics of when it has reported something before: the same trouble once more.
_CONSEQUENCE = re.compile(
    r"Kernel panic - not syncing: (?:Fatal exception|.*panic_on_warn|softlockup: hung tasks|Hard LOCKUP"
    r"|hung_task: blocked tasks|RCU Stall|kasan|KFENCE|UBSAN|Aiee, killing|Attempted to kill|Machine halted"
    r"|Fatal hardware|scheduling while atomic|corrupted stack end)"
)
# Lines of an oops that would begin a report elsewhere.
_CONTINUES = {
    "oops": re.compile(r"Oops|BUG: unable|general protection|double fault|.*stack guard"),
    "bug": re.compile(r"Oops: invalid opcode|invalid opcode: "),
    "usercopy": re.compile(r"kernel BUG at|Oops: |invalid opcode: "),
    "refcount": re.compile(r"WARNING: lib/refcount"),
    "stall": re.compile(r"rcu: INFO: "),
    "panic": re.compile(r"Kernel panic"),
}


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the console. number: from 0. raw: as it came; text: without time and caller ("T7", "C0").

    kernel: after how many kexecs.
    """

    number: int
    at: float
    raw: str
    text: str
    caller: str
    kernel: int


@dataclass(slots=True)
class _Report:
    """A report under way: the lines of the one who tells it, and all lines for a person."""

    form: titles.Format
    match: re.Match[str]
    first: Said
    before: tuple[str, ...]
    texts: list[str]
    lines: list[str]
    last: Said
    caller: str
    rules: int = 0
    closed: bool = False

    def belongs(self, line: Said) -> bool:
        return (
            not self.closed
            and line.kernel == self.first.kernel
            and line.at - self.last.at < PAUSE_SECONDS
            and len(self.lines) < REPORT_LINES
        )

    def add(self, line: Said) -> None:
        self.lines.append(line.raw)
        if self.form.kind in _OTHER_CPU and _SHOWN.match(line.text):
            self.caller = line.caller
        if line.caller != self.caller:
            return
        self.texts.append(line.text)
        self.last = line
        self.rules += bool(_RULE.match(line.text))
        if (end := _END.search(line.text)) and (end[0].startswith("---") or self.form.kind not in _LONG):
            self.closed = True
        if self.form.kind in ("kasan", "kfence") and self.rules:
            self.closed = True

    def goes_on(self, line: Said) -> bool:
        """Whether a line that begins a report elsewhere belongs to this one."""
        if line.kernel != self.first.kernel:
            return False
        if _CONSEQUENCE.match(line.text):
            return True
        pattern = _CONTINUES.get(self.form.kind)
        return pattern is not None and self.belongs(line) and pattern.match(line.text) is not None

    def finding(self) -> Finding:
        name, function = titles.title(self.form, self.match, self.texts)
        place = self.match.groupdict().get("place") or ""
        return Finding(
            kind=self.form.kind,
            title=name,
            kernel=self.first.kernel,
            at=self.first.at,
            number=self.first.number,
            before=self.before,
            lines=tuple(self.lines),
            function=function,
            place=place,
        )


@dataclass(frozen=True, slots=True)
class Log:
    """A console that was read. kernels: how many began to speak; between: whether the last one that spoke
    had gone into a kexec and no other has spoken since."""

    lines: tuple[Said, ...]
    between: bool

    @property
    def kernel(self) -> int:
        """The kernel that spoke last, after how many kexecs."""
        return self.lines[-1].kernel if self.lines else 0

    @property
    def silent(self) -> bool:
        """Whether no kernel said anything."""
        return not any(line.text for line in self.lines)


def read(lines: Iterable[tuple[float, str]]) -> Log:
    """Tell time and caller from the text, and the kernels from each other.

    lines: seconds since power-on, and the line as it came.
    """
    said: list[Said] = []
    kernel, left = 0, False
    for number, (at, raw) in enumerate(lines):
        match = _prefix(raw)
        text = raw[match.end() :]
        if text.startswith(BANNER):
            # Who comes without a kexec came through the firmware, as the first one did.
            kernel = kernel + 1 if left else 0
            left = False
        elif LAST_WORD in text:
            left = True
        said.append(Said(number, at, raw, text, match[1] or "", kernel))
    return Log(tuple(said), left)


def _prefix(raw: str) -> re.Match[str]:
    match = PREFIX.match(raw)
    assert match is not None
    return match if match.end() else _LATE_PREFIX.search(raw, 1) or match


def findings(
    lines: Iterable[tuple[float, str]], ending: Ending | None = None, function: str = ""
) -> tuple[Finding, ...]:
    """All findings in the order of the lines: each title once for each kernel, with its count.

    ending: how the machine died, where it did; a death that no report explains is a finding as well.
    function: that which the CPU was in then, "" where it is not known.
    """
    log = read(lines)
    found = [report.finding() for report in _reports(log.lines)]
    if ending and (silent := _silent(log, ending, function, found)):
        found.append(silent)
    return _merged(found)


def _reports(lines: Sequence[Said]) -> Iterator[_Report]:
    current: _Report | None = None
    for line in lines:
        start = titles.recognise(line.text) if _HINT.search(line.text) else None
        if start and not (current and current.goes_on(line)):
            if current:
                yield current
            before = tuple(one.raw for one in lines[max(0, line.number - BEFORE_LINES) : line.number])
            current = _Report(*start, line, before, [line.text], [line.raw], line, line.caller)
        elif current and (current.belongs(line) or start):
            current.add(line)
    if current:
        yield current


def _merged(found: Sequence[Finding]) -> tuple[Finding, ...]:
    first: dict[tuple[str, int], Finding] = {}
    for one in found:
        key = (one.title, one.kernel)
        known = first.get(key)
        first[key] = replace(known, count=known.count + one.count) if known else one
    return tuple(first.values())


# ---- deaths without a word --------------------------------------------------------------------

# Reports after which a kernel dies: a reset needs no other explanation.
_DEADLY = ("panic", "oops", "bug", "usercopy")


def _silent(log: Log, ending: Ending, function: str, found: Sequence[Finding]) -> Finding | None:
    last = found[-1] if found else None
    if last and last.kernel == log.kernel and not log.between:
        panicked = any("Kernel panic" in line for line in last.lines)
        if panicked or (last.kind in _DEADLY and ending.death is not Death.HANG):
            return None
    kind, name = _name(log, ending, function)
    tail = tuple(line.raw for line in log.lines[-BEFORE_LINES:])
    return Finding(
        kind=kind,
        title=name,
        kernel=log.kernel,
        at=ending.at,
        number=len(log.lines),
        before=tail,
        lines=ending.registers,
        function=function,
    )


def _name(log: Log, ending: Ending, function: str) -> tuple[str, str]:
    where = f" in {plain(function)}" if function else ""
    how = {
        Death.PANIC: ("panic", "panic without a word"),
        Death.RESET: ("triple-fault", "triple fault"),
        Death.POWEROFF: ("poweroff", "the machine was switched off"),
        Death.HANG: ("hang", "hang"),
    }
    kind, name = how[ending.death]
    if log.between:
        return "purgatory", f"died between the kernels: {name}{where}"
    if ending.death is Death.RESET and any(RESTART.search(line.text) for line in log.lines[-BEFORE_LINES:]):
        return "reboot", "the host rebooted"
    if log.silent:
        return kind, f"{name} before the first word{where}"
    return kind, f"{name}{where}"
