# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of programs has each at its place, executable, and is made once."""

from __future__ import annotations

from pathlib import Path

from harness.command import run
from harness.deadline import Deadline
from harness.image import disk
from harness.store import Store


def test_a_disk_has_its_programs(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    store = Store(tmp_path / "store")
    made = disk.build("selftests", {"kvm/x86/one": program, "two": program}, store)
    assert made.name == "selftests"
    out = tmp_path / "out"
    deadline = Deadline.after(30, "unpacking")
    run(["fsck.erofs", f"--extract={out}", made.path], deadline=deadline)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {"kvm/x86/one", "two"}
    assert run([out / "two"], deadline=deadline, check=False).status == 3
    assert disk.build("selftests", {"two": program, "kvm/x86/one": program}, store) == made
    assert disk.build("selftests", {"two": program}, store) != made
