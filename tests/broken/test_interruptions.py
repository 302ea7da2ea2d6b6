# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C and SIGTERM in each phase of a run: it ends at once, says where it was, and leaves nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.broken.conftest import Bed, await_file, interrupt

# Which program, called with which word, is what a phase waits for.
PHASES = {
    "source": ("git", "ls-files"),
    "series": ("git", " am "),
    "config": ("make", "config"),
    "build": ("make", "vmlinux"),
    "image": ("mkfs.erofs", ""),
    "scenarios": ("", ""),
}
# Each takes 2 to 5 seconds, so not all of them by default.
DEFAULT = {("source", 2), ("series", 15), ("build", 2), ("scenarios", 15)}
CASES = [
    pytest.param(phase, number, marks=() if (phase, number) in DEFAULT else pytest.mark.long)
    for phase in PHASES
    for number in (signal.SIGINT, signal.SIGTERM)
]
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Date: Mon, 1 Jan 2024 00:00:00 +0000
Subject: [PATCH] one

---
diff --git a/new.txt b/new.txt
new file mode 100644
--- /dev/null
+++ b/new.txt
@@ -0,0 +1 @@
+new
"""


@pytest.mark.parametrize(("phase", "number"), CASES)
def test_interruption(
    bed: Callable[..., Bed],
    warm: Callable[..., Bed],
    stalling: Callable[[str, str], object],
    phase: str,
    number: signal.Signals,
) -> None:
    made = bed() if phase == "image" else warm()
    cue = made.folder / "stalled"
    (made.folder / "test_own.py").write_text(
        f"import time\nfrom pathlib import Path\ndef test_it(host):\n"
        f"    Path({str(cue)!r}).touch()\n    time.sleep(600)\n"
    )
    program, word = PHASES[phase]
    if program:
        cue = stalling(program, word)  # type: ignore[assignment]
    words = []
    if phase == "series":
        (made.folder / "series").mkdir()
        (made.folder / "series" / "0001-one.patch").write_text(PATCH)
        words = ["--series", str(made.folder / "series")]
    with made.start(*words) as process:
        await_file(cue)
        began = time.monotonic()
        interrupt(process, number)
        status = process.wait(30)
    ran = made.ended(status, began)
    assert ran.status == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], ran.said
    assert ran.seconds < 8
    assert "Traceback" not in ran.said
    by = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert ran.result["outcome"] == "BROKEN"
    assert ran.result["reason"].startswith(f"interrupted by {by}")
    assert ran.result["phases"][-1]["name"] == phase
    assert (made.runs / "latest" / "report.html").is_file()
    made.assert_clean()
