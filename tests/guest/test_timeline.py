# SPDX-License-Identifier: GPL-2.0-or-later
"""The spans of a live update, from what its four witnesses say."""

from __future__ import annotations

import pytest

from harness.case import LiveUpdate, Span
from harness.guest.journal import Call, Entry
from harness.guest.timeline import Seen, clock, updates

# The old agent's clock is 100 s behind the host's, the new one's 200 s; each request takes 2 ms each way.
OLD, NEW = 100.0, 200.0


def call(operation: str, at: float, seconds: float, boot: str, *, errno: int = 0) -> Call:
    """A call whose work begins at `at` on the host's clock."""
    offset = {"old": OLD, "new": NEW}[boot]
    return Call(operation, at - 0.002, seconds + 0.004, seconds, errno, boot, at - offset)


UPDATE = LiveUpdate("7.3.4", "7.3.4", "old", "new", 1, 2.0)
JOURNAL: list[Entry] = [
    call("liveupdate.preserve", 1000.0, 0.010, "old"),
    call("liveupdate.preserve", 1000.1, 0.030, "old", errno=16),
    call("liveupdate.preserve", 1000.2, 0.020, "old"),
    call("kexec.load", 1001.0, 0.5, "old"),
    Call("kexec.reboot", 1002.0, 2.0, 0.0, 0, "old"),
    UPDATE,
    call("liveupdate.retrieve", 1005.0, 0.001, "new"),
    call("vcpu.run", 1005.5, 0.25, "new"),
    call("vcpu.run", 1006.5, 0.25, "new"),
]
LINES = [
    Seen(990.0, "[    0.000000] Linux version 7.3.4"),
    Seen(992.0, "[    2.000000] a line that took the shortest way"),
    Seen(1002.55, "[   12.500000] kexec_core: Starting new kernel"),
    Seen(1003.0, "early console in extract_kernel"),
    Seen(1003.4, "[    0.000000] Linux version 7.3.4"),
]


def spans(entries: list[Entry], lines: list[Seen], closings: list[float]) -> dict[str, Span]:
    """By name, the last of each; their times rounded to what is asserted."""
    (update,) = updates(entries, lines, closings)
    return {span.name: span for span in update.spans}


def test_each_stage_is_where_its_witness_saw_it() -> None:
    (update,) = updates(JOURNAL, LINES, [1002.2, 1009.0])
    found = [(span.name, round(span.start, 3), round(span.seconds, 3)) for span in update.spans]
    assert found == [
        ("preserve", 1000.0, 0.01),
        ("preserve", 1000.2, 0.02),  # the one that failed preserved nothing
        ("load", 1001.0, 0.5),
        ("freeze", 1002.002, 0.198),
        ("shutdown", 1002.2, 0.3),
        ("purgatory", 1002.5, 0.5),
        ("decompression", 1003.0, 0.4),
        ("boot", 1003.4, 0.6),
        ("retrieve", 1005.0, 0.001),
        ("guest runs", 1005.5, 0.0),
    ]


def test_a_late_line_is_put_where_its_kernel_said_it_and_says_how_sure_that_is() -> None:
    found = spans(JOURNAL, LINES, [])
    assert round(found["purgatory"].start, 3) == 1002.5
    assert round(found["purgatory"].within, 3) == 0.05
    assert round(found["preserve"].within, 4) == 0.002


def test_closing_that_qemu_held_back_says_nothing() -> None:
    """It tells of a port once a second: right after another change, too late to be the shutdown's."""
    found = spans(JOURNAL, LINES, [1003.1])
    assert "shutdown" not in found
    assert round(found["purgatory"].start, 3) == 1002.5
    assert round(found["freeze"].seconds, 3) == 0.498


def test_what_nobody_saw_is_no_stage_of_its_own() -> None:
    found = spans(JOURNAL, [], [])
    assert list(found) == ["preserve", "load", "freeze", "retrieve", "guest runs"]
    assert round(found["freeze"].start + found["freeze"].seconds, 3) == 1004.0


def test_update_whose_agents_tell_no_time_has_only_what_the_console_says() -> None:
    silent: list[Entry] = [Call("kexec.reboot", 1002.0, 2.0, 0.0, 0, "old"), UPDATE]
    assert list(spans(silent, LINES, [])) == ["freeze", "purgatory", "decompression", "boot"]


def test_many_calls_are_told_as_one() -> None:
    many: list[Entry] = [call("liveupdate.preserve", 1000.0 + n / 100, 0.001, "old") for n in range(50)]
    (update,) = updates([*many, *JOURNAL[3:]], LINES, [])
    (span,) = (span for span in update.spans if span.name == "preserve")
    assert round(span.seconds, 3) == 0.491
    assert "50 calls" in span.known


def test_the_call_with_the_least_slack_sets_the_clock() -> None:
    slow = Call("host.clock", 1000.0, 1.0, 0.1, 0, "old", 900.8)
    found = clock([slow, call("host.clock", 1002.0, 0.1, "old")])
    assert found is not None
    assert found.offset == pytest.approx(OLD)
    assert found.within == pytest.approx(0.002)
    assert clock([]) is None
