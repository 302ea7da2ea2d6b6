# SPDX-License-Identifier: GPL-2.0-or-later
"""A run for others: what is packed comes out again elsewhere, and the summary can be read without it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness import repro
from harness.case import Case, KernelDefinition, MachineSpec, Selftest
from harness.errors import UsageError

NAME = "20261121T022535Z-ab12"
KERNEL = {
    "name": "linux-7.3",
    "release": "7.3.4",
    "digest": "9058c8ef3498b3658923",
    "patches": [f"KVM: patch number {n} of a series that has a rather long subject line" for n in range(14)],
    "config": "kernel.config",
    "ingredients": {
        "version": "7.3.4",
        "origin": "linux-source-7.3_7.3.4-1~bpo13+1_all from trixie-backports",
        "tree": "t",
        "config": "c",
        "toolchain": "gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nGNU ld (GNU Binutils for Debian) 2.40",
    },
}
FINDING = {"title": "KASAN: slab-use-after-free Read in kvm_gmem_fault", "lines": ["BUG: KASAN: ..."] * 60}


def scenario(name: str, outcome: str, reason: str = "", findings: tuple[object, ...] = ()) -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "reason": reason, "detail": reason, "findings": list(findings)}


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "directory": f"/runs/{NAME}",
        "outcome": "FAIL",
        "reason": "a kernel reported",
        "detail": "",
        "kernel": KERNEL,
        "next_kernel": KERNEL,
        "accelerator": {"name": "tcg", "reason": "no /dev/kvm"},
        "environment": {
            "emulator": "QEMU emulator version 7.2.22",
            "harness": "0.1.0",
            "commit": "9b82b19" * 5,
        },
        "case": {"seed": 7, "machine": {"cpus": 2, "memory_bytes": 1 << 30}},
        "scenarios": [
            scenario("test_basic.py::test_a", "PASS"),
            scenario("test_basic.py::test_b[x]", "FAIL", "a kernel reported", (FINDING,)),
        ],
        "totals": {"passed": 1, "failed": 1, "skipped": 0, "broken": 0, "live_updates": 2},
    }


@pytest.fixture
def run(tmp_path: Path, result: dict[str, Any]) -> Path:
    """A run directory with what is packed, and what is not."""
    directory = tmp_path / "runs" / NAME
    (directory / "case" / "kernel" / "series").mkdir(parents=True)
    (directory / "test_basic.test_a").mkdir()
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "case" / "case.json").write_text("{}")
    (directory / "case" / "kernel" / "series" / "0001-one.patch").write_text("Subject: one\n")
    (directory / "kernel.config").write_text("CONFIG_KVM=y\n")
    (directory / "test_basic.test_a" / "console.log").write_bytes(
        b"begin\n" + b"flood\n" * 500_000 + b"end\n"
    )
    (directory / "test_basic.test_a" / "vmcore").write_bytes(b"\0" * 100_000)
    return directory


# ---- the tarball ------------------------------------------------------------------------------


def test_what_is_packed_comes_out_again(run: Path, tmp_path: Path) -> None:
    size = repro.pack(run, tmp_path / "run.tar.xz")
    assert size == (tmp_path / "run.tar.xz").stat().st_size < 20_000
    out = repro.unpack(tmp_path / "run.tar.xz", tmp_path / "elsewhere")
    assert out.name == NAME
    for name in ("result.json", "kernel.config", "case/kernel/series/0001-one.patch"):
        assert (out / name).read_bytes() == (run / name).read_bytes()
    assert (out / "SUMMARY.txt").read_text().startswith("Subject: ")
    assert not (out / "test_basic.test_a" / "vmcore").exists()
    log = (out / "test_basic.test_a" / "console.log").read_bytes()
    assert log.startswith(b"begin\n")
    assert log.endswith(b"end\n")
    assert b"left out]" in log


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    repro.pack(run, tmp_path / "a.tar.xz")
    (run / "kernel.config").touch()
    repro.pack(run, tmp_path / "b.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", f"{NAME}/../../out", f"{NAME}/link"])
def test_nothing_is_written_outside_of_its_place(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar.xz", "w:xz") as archive:
        for each in (f"{NAME}/case/case.json", name):
            entry = tarfile.TarInfo(each)
            if each.endswith("link"):
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
            entry.size = 0
            archive.addfile(entry, io.BytesIO())
    with pytest.raises(UsageError, match="no packed run"):
        repro.unpack(tmp_path / "evil.tar.xz", tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("data", [b"", b"not a tarball", b"\xfd7zXZ\0\0"])
def test_what_is_no_tarball_is_the_user_s_mistake(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar.xz").write_bytes(data)
    with pytest.raises(UsageError, match="no packed run"):
        repro.unpack(tmp_path / "x.tar.xz", tmp_path / "place")


# ---- the summary ------------------------------------------------------------------------------


def test_summary_reads_like_a_mail_to_a_list(result: dict[str, Any]) -> None:
    text = repro.summary(result)
    subject, blank, *rest = text.splitlines()
    assert subject == "Subject: [BUG] KASAN: slab-use-after-free Read in kvm_gmem_fault (7.3.4)"
    assert blank == ""
    body = "\n".join(rest)
    for said in ("7.3.4, digest 9058c8ef", "linux-source-7.3_7.3.4", "gcc (Debian", "FAIL: test_b[x]"):
        assert said in body
    assert all(len(line) <= repro.COLUMNS for line in rest)
    assert body.count("BUG: KASAN") == repro.SPLAT_LINES
    commands = [line for line in rest if line.startswith("  ./luh ")]
    assert len(commands) == 3


def test_summary_of_a_run_that_ended_early_says_where(result: dict[str, Any]) -> None:
    early = result | {"kernel": None, "next_kernel": None, "accelerator": None, "environment": None}
    early |= {"scenarios": [], "reason": "patch 3 does not apply", "detail": "hunk 1", "totals": {}}
    early["totals"] = dict.fromkeys(("passed", "failed", "skipped", "broken", "live_updates"), 0)
    text = repro.summary(early)
    assert text.startswith("Subject: [BUG] patch 3 does not apply\n")
    assert "ended before its first scenario" in text
    assert "  hunk 1" in text


# ---- finding and comparing --------------------------------------------------------------------


def test_a_run_is_found_by_path_name_or_latest(run: Path) -> None:
    runs = run.parent
    (runs / "latest").symlink_to(run.name)
    assert repro.find(str(run), runs) == repro.find(NAME, runs) == repro.find("latest", runs) == run
    with pytest.raises(UsageError, match="no run") as caught:
        repro.find("20261121T022535Z-ab13", runs)
    assert NAME in caught.value.hint


def test_failed_scenarios_are_named_by_their_files(result: dict[str, Any]) -> None:
    assert repro.failed(result, ("/x/test_basic.py",)) == ("/x/test_basic.py::test_b[x]",)
    result["scenarios"][1]["outcome"] = "PASS"
    with pytest.raises(UsageError, match="nothing failed"):
        repro.failed(result, ("/x/test_basic.py",))


def test_comparison_tells_the_same_failure_from_another(result: dict[str, Any]) -> None:
    now = {
        "scenarios": [
            scenario("test_basic.py::test_a", "PASS"),
            scenario("test_basic.py::test_b[x]", "FAIL", "a kernel reported"),
        ]
    }
    assert repro.compare(result, now) == [
        ("test_a", "PASS", "PASS"),
        ("test_b[x]", "FAIL", "FAIL, for the same reason"),
    ]
    now["scenarios"][1]["reason"] = "page 3"
    assert repro.compare(result, now)[1][2] == "FAIL, but: page 3"


def test_failed_tests_of_the_kernel_are_those_that_are_run_again(result: dict[str, Any]) -> None:
    tests = (Selftest("kvm/one"), Selftest("liveupdate/two", stages=2), Selftest("kvm/three"))
    kernel = KernelDefinition("tiny", (), (), ())
    case = Case(kernel, kernel, "minimal", MachineSpec(), (), selftests=tests)
    outcomes = ("PASS", "FAIL", "SKIP")
    result["scenarios"] = [
        {"name": test.title, "outcome": outcome} for test, outcome in zip(tests, outcomes, strict=True)
    ]
    assert repro.only_failed(result, case).selftests == (tests[1],)
    result["scenarios"][1]["outcome"] = "PASS"
    with pytest.raises(UsageError, match="nothing failed"):
        repro.only_failed(result, case)
