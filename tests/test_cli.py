# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a user has it: words in, text and an exit status out. Only QEMU is a stand-in."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import command
from harness.deadline import Deadline
from harness.store import Store

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Luh:
    """The command, with a store and a place for runs of its own."""

    directory: Path
    store: Store

    @property
    def runs(self) -> Path:
        return self.directory / "runs"

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "harness.cli"]

    @property
    def env(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "LUH_STORE": str(self.store.root),
            "LUH_RUNS": str(self.runs),
            "NO_COLOR": "",
        }

    def __call__(self, *words: str | Path, interrupt: signal.Signals | None = None, cue: str = "") -> Said:
        """Run to the end; with `interrupt`, send that signal when the console of a run says the cue."""
        out, err = self.directory / "out", self.directory / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            argv = [*self.argv, *words]
            with command.spawn(argv, env=self.env, stdout=stdout, stderr=stderr) as process:
                if interrupt:
                    self.await_cue(cue)
                    os.kill(process.pid, interrupt)
                status = process.wait(SECONDS)
        return Said(status, out.read_text(), err.read_text())

    def await_cue(self, cue: str) -> None:
        limit = time.monotonic() + SECONDS
        while not any(cue in path.read_text() for path in self.runs.glob("*/*/console.log")):
            assert time.monotonic() < limit
            time.sleep(0.05)


@pytest.fixture
def luh(tmp_path: Path, small_store: Store, standin: object) -> Luh:
    return Luh(tmp_path, small_store)


@pytest.fixture
def run(luh: Luh, tiny_kernel: Path, write_scenario: Callable[[str], Path]) -> Callable[..., Said]:
    """`luh run` of a scenario with this body on the tiny kernel."""

    def run(body: str, *words: str | Path, interrupt: signal.Signals | None = None, cue: str = "") -> Said:
        file = write_scenario(body)
        return luh("run", file, "--kernel", tiny_kernel, *words, interrupt=interrupt, cue=cue)

    return run


PASSING = "def test_it(host):\n    host.files.memfd(4096).fill(seed=1)\n"


# ---- words ------------------------------------------------------------------------------------


def test_help_names_the_commands(luh: Luh) -> None:
    said = luh("--help")
    assert said.status == 0
    for name in ("run", "build", "list", "bench", "doctor", "test"):
        assert re.search(rf"^    {name} ", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "named", "hint"),
    [
        ((), "COMMAND", "luh --help"),
        (("rnu",), "rnu", "'run'"),
        (("run", "--froom"), "--froom", "luh run --help"),
        (("run", "basics"), "basics", "did you mean basic"),
        (("run", "test_memory_survive"), "test_memory_survive", "did you mean test_memory_survives"),
        (("run", "--kernel", "linux-7.4"), "linux-7.4", "did you mean linux-7.3"),
        (("run", "--kernel", "/no/such.yaml"), "/no/such.yaml", "linux-7.3"),
        (("run", "--next-kernel", "linux-7.4"), "linux-7.4", "did you mean linux-7.3"),
        (("run", "--tree", "/tmp"), "/tmp is no kernel tree", "Kconfig"),
        (("run", "--series", "/no/such"), "/no/such", "ours, or none"),
        (("run", "--memory", "3X"), "3X", "512M or 2G"),
        (("run", "--memory", "64M"), "64M is too little", "256M"),
        (("run", "--cpus", "0"), "'0'", "--help"),
        (("run", "--accel", "xen"), "xen", "tcg"),
        (("run", "--host", "ssh://a@b", "--gdb"), "a socket of this machine", "leave out --host"),
        (("run", "--host", "ssh://a@b", "--vmcore"), "a QEMU of this machine", "leave out --host"),
        (("bench", "boots"), "boots", "did you mean boot"),
        (("bench", "boot", "preserve"), "measured by itself", "luh bench preserve"),
        (("bench", "breakdwn"), "breakdwn", "did you mean breakdown"),
        (("bench", "preserve", "--largest", "1M"), "no shape is that small", "16M"),
    ],
)
def test_wrong_word_gets_a_line_and_a_hint(luh: Luh, words: tuple[str, ...], named: str, hint: str) -> None:
    said = luh(*words)
    assert said.status == 2
    assert said.out == ""
    assert said.err.startswith("luh: ")
    assert named in said.err
    assert hint in said.err
    assert len(said.err.splitlines()) <= 2
    assert not luh.runs.exists()


def test_mistake_in_a_definition_says_where(luh: Luh, tmp_path: Path) -> None:
    wrong = tmp_path / "mine.yaml"
    wrong.write_text("source:\n  - debian: linux-source-7.3\n    siute: trixie\nfragments: [base]\n")
    said = luh("run", "--kernel", wrong)
    assert said.status == 2
    assert f"{wrong}:3: source[0].siute" in said.err


def test_tests_of_the_kernel_are_listed_and_a_wrong_name_is_told_what_is_near(luh: Luh) -> None:
    listed = luh("kselftest", "--list")
    assert listed.status == 0
    assert "liveupdate/luo_kexec_simple" in listed.out
    wrong = luh("kselftest", "luo_kexec_simpel")
    assert wrong.status == 2
    assert "luo_kexec_simple" in wrong.err


def test_a_test_that_the_tree_does_not_have_is_known_before_anything_is_built(
    luh: Luh, tiny_kernel: Path, standin: Callable[..., None]
) -> None:
    words = ("kselftest", "--kernel", str(tiny_kernel), "--two-stage", "liveupdate/luo_mine")
    kernels = set(luh.store.root.glob("kernel/*"))
    said = luh(*words, "--accel", "tcg", "--no-color")
    assert said.status == 2
    assert "the tree has no tools/testing/selftests/liveupdate/luo_mine.c" in said.err
    assert set(luh.store.root.glob("kernel/*")) == kernels


def test_list_names_everything(luh: Luh) -> None:
    said = luh("list")
    assert said.status == 0
    for name in ("linux-7.3", "test_memory_survives", "Scenarios: basic", "minimal"):
        assert name in said.out


def test_list_names_one_subject(luh: Luh) -> None:
    said = luh("list", "images")
    assert said.status == 0
    assert "minimal" in said.out
    assert "linux-7.3" not in said.out


def test_doctor_speaks_json(luh: Luh) -> None:
    said = luh("doctor", "--json")
    report = json.loads(said.out)
    assert said.status == (0 if report["ok"] else 3)
    assert "gcc" in {row["name"] for row in report["rows"]}


# ---- runs -------------------------------------------------------------------------------------


def test_passing_run(luh: Luh, run: Callable[..., Said]) -> None:
    said = run(PASSING)
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    for phase in ("machine", "source", "series", "config", "build", "image", "test_it"):
        assert any(line.startswith(f"ok      {phase}") for line in lines), phase
    assert "PASS" in said.out
    assert "1 passed" in said.out
    assert "\x1b" not in said.out
    assert said.err == ""
    latest = luh.runs / "latest"
    assert json.loads((latest / "result.json").read_text())["outcome"] == "PASS"
    assert {path.name for path in latest.iterdir()} == {
        "case",
        "report.html",
        "result.json",
        "junit.xml",
        "results.ktap",
        "kernel.config",
        "next-kernel.config",
        "bench.json",
        "pytest.log",
        "test_own.test_it",
        "trees",
    }


def test_json_alone_is_on_stdout(luh: Luh, run: Callable[..., Said]) -> None:
    said = run(PASSING, "--json", "--seed", "9", "--cpus", "3", "--memory", "512M")
    result = json.loads(said.out)
    assert said.out == (luh.runs / "latest" / "result.json").read_text()
    assert result["case"]["seed"] == 9
    assert (result["case"]["machine"]["cpus"], result["case"]["machine"]["memory_bytes"]) == (3, 512 << 20)
    assert "ok      build" in said.err


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("def test_it(host):\n    assert 1 == 2\n", 1, ("FAIL", "assert 1 == 2", "1 failed")),
        ("def test_it():\n    pytest.skip('no VM here')\n", 1, ("SKIP", "no VM here", "1 skipped")),
        ("def test_it():\n    raise InfraError('no disk')\n", 3, ("BROKEN", "no disk", "1 broken")),
    ],
)
def test_exit_status(run: Callable[..., Said], body: str, status: int, words: tuple[str, ...]) -> None:
    said = run(body)
    assert said.status == status
    for word in words:
        assert word in said.out


def test_kernel_that_does_not_boot_shows_its_last_lines(
    run: Callable[..., Said], standin: Callable[..., None]
) -> None:
    standin("silent", "panic=0.2")
    # A machine that no other test booted, so that there is no snapshot to start from.
    said = run(f'@pytest.mark.machine(kernel_parameters=("luh.dies",))\n{PASSING}')
    assert said.status == 1
    assert "RIP: 0010:kvm_gmem_fault" in said.out
    assert "panicked" in said.out


def test_old_qemu_is_named(run: Callable[..., Said], standin: Callable[..., None]) -> None:
    standin("old")
    said = run(PASSING)
    assert said.status == 3
    assert "QEMU 5.2 is too old" in said.out


def test_patch_that_does_not_apply_names_file_and_hunk(run: Callable[..., Said], tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "0001-wrong.patch").write_text(
        "From 1234 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n"
        "Subject: [PATCH] wrong\n\n---\n init/main.c | 2 +-\n\ndiff --git a/init/main.c b/init/main.c\n"
        "--- a/init/main.c\n+++ b/init/main.c\n@@ -1,1 +1,1 @@\n-not there\n+there\n-- \n2.39\n"
    )
    said = run(PASSING, "--series", series)
    assert said.status == 1
    assert "0001-wrong.patch does not apply: init/main.c, hunk 1 of 1" in said.out


def test_place_that_cannot_be_written(run: Callable[..., Said]) -> None:
    said = run(PASSING, "--runs", "/proc/nowhere")
    assert said.status == 3
    assert "cannot make the run directory /proc/nowhere" in said.err
    assert "--runs" in said.err


def test_own_tree_is_built(luh: Luh, write_scenario: Callable[[str], Path], tiny_kernel: Path) -> None:
    file = write_scenario(PASSING)
    said = luh("run", file, "--kernel", tiny_kernel, "--tree", tiny_kernel.parent / "linux", "--json")
    assert json.loads(said.out)["kernel"]["name"] == "linux"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing_behind(
    run: Callable[..., Said], luh: Luh, number: signal.Signals, status: int
) -> None:
    said = run("import time\ndef test_it(host): time.sleep(3600)\n", interrupt=number, cue="Linux version")
    assert said.status == status
    assert "Traceback" not in said.out + said.err
    assert "what there was until then" in said.err
    result = json.loads((luh.runs / "latest" / "result.json").read_text())
    assert (result["outcome"], result["scenarios"]) == ("BROKEN", [])
    by = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert result["reason"] == f"interrupted by {by} in test_it"
    assert result["detail"] == "0 of 1 scenario had ended"
    assert result["kernel"]["release"]
    log = (luh.runs / "latest" / "pytest.log").read_text()
    assert "the host did not answer" not in log and "host.hello" not in log
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert str(luh.runs) not in text


# ---- luh repro --------------------------------------------------------------------------------

FLAKY = "def test_a(host): pass\ndef test_b(host): raise KernelError('it is wrong')\n"


def test_run_is_repeated_with_the_same_kernel_although_all_has_changed(
    run: Callable[..., Said], luh: Luh, write_scenario: Callable[[str], Path]
) -> None:
    run(FLAKY, "--seed", "9", "--memory", "512M")
    first = json.loads((luh.runs / "latest" / "result.json").read_text())
    write_scenario("def test_a(host): pass\n")
    said = luh("repro", "latest", "--failed")
    assert said.status == 1
    again = json.loads((luh.runs / "latest" / "result.json").read_text())
    assert again["directory"] != first["directory"]
    assert [one["name"] for one in again["scenarios"]] == ["test_own.py::test_b"]
    assert again["kernel"] == first["kernel"]
    assert (again["case"]["seed"], again["case"]["machine"]) == (9, first["case"]["machine"])
    assert "the very kernel that was recorded" in said.out
    assert "FAIL, for the same reason" in said.out


def test_packed_run_is_repeated_elsewhere_once_its_scenarios_are_trusted(
    run: Callable[..., Said], luh: Luh, tmp_path: Path
) -> None:
    run(PASSING)
    tarball = tmp_path / "x.tar.xz"
    packed = luh("repro", "latest", "--pack", "-o", tarball)
    assert packed.status == 0
    assert packed.out.startswith("Subject: [test] 1 scenarios passed (")
    elsewhere = tmp_path / "elsewhere"
    refused = luh("repro", tarball, "--runs", elsewhere)
    assert refused.status == 2
    assert "scenarios of its own: test_own.py" in refused.err
    said = luh("repro", tarball, "--runs", elsewhere, "--trust")
    assert said.status == 0, said.err
    assert json.loads((elsewhere / "latest" / "result.json").read_text())["outcome"] == "PASS"


def test_kernel_that_cannot_be_the_same_is_refused_with_what_differs(
    run: Callable[..., Said], luh: Luh
) -> None:
    run(PASSING)
    file = luh.runs / "latest" / "result.json"
    result = json.loads(file.read_text())
    for kernel in (result["kernel"], result["next_kernel"]):
        kernel["digest"] = "0" * 20
        kernel["ingredients"]["toolchain"] = "gcc 1.0\nGNU ld 1.0"
    file.write_text(json.dumps(result))
    name = file.parent.resolve().name
    said = luh("repro", name)
    assert said.status == 3
    assert "not the kernel that was recorded: the toolchain: gcc" in said.out
    assert "here, gcc 1.0 then" in said.out
    assert luh("repro", name, "--anyway").status == 0


def test_reader_that_has_enough_is_no_error(luh: Luh) -> None:
    done = command.run(
        ["sh", "-c", f"{' '.join(luh.argv)} list | head -1"],
        env=luh.env,
        deadline=Deadline.after(SECONDS, "head"),
    )
    assert done.output == "Kernels"
