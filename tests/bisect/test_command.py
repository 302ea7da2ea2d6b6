# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bisect` as a user has it: git, make, the agent and the scenarios are real, only QEMU is a stand-in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import command
from harness.deadline import Deadline
from harness.store import Store
from tests.bisect.conftest import IDENTITY, History

ROOT = Path(__file__).resolve().parents[2]
# The stand-in goes to its next kernel when the agent dies. What a kernel was built with is what it suffers.
SCENARIO = """
import os, re, time
from harness.guest.errors import raises_errno
from harness.guest.kexec import go


def faults(kernel):
    return set(re.findall(rb"FAULT=(\\w+)", kernel.read_bytes()))


def test_it(host, bench):
    going, coming = faults(bench.kernel.bzimage), faults(bench.next_kernel.bzimage)
    memory = host.files.memfd(1 << 16)
    memory.fill(seed=1)
    if b"errno" in going:
        with raises_errno(1):
            host.call("files.size", file=memory)
    os.kill(host.identity.agent_pid, 9)
    host = go(host, host.deadline(2.0, "the next kernel"), time.monotonic(), "host.hello")
    memory = host.files.memfd(1 << 16)
    memory.fill(seed=1)
    if b"lost_page" in coming:
        memory.fill(seed=2)
    time.sleep(0.3)
    memory.verify(seed=1)
"""
FRAGMENT = "CONFIG_EXPERT=y\n"


@dataclass(frozen=True)
class Luh:
    """The command on a history of the fake kernel."""

    directory: Path
    history: History
    store: Store

    def __call__(self, *words: str | Path, cwd: Path | None = None) -> tuple[int, str]:
        argv = [sys.executable, "-P", "-m", "harness.cli", *words]
        env = {
            "PYTHONPATH": str(ROOT),
            "LUH_STORE": str(self.store.root),
            "LUH_RUNS": str(self.directory / "runs"),
            "LUH_BISECTIONS": str(self.directory / "bisections"),
            "COLUMNS": "200",
        }
        deadline = Deadline.after(900, "luh bisect")
        done = command.run(argv, env=env, cwd=cwd or self.directory, deadline=deadline, check=False)
        return done.status, done.output

    @property
    def how(self) -> tuple[str | Path, ...]:
        return (
            "--kernel",
            self.directory / "tiny.yaml",
            "--scenario",
            self.directory / "scenarios/test_own.py",
        )


@pytest.fixture
def luh(
    tmp_path: Path,
    history: History,
    small_store: Store,
    standin: object,
    write_scenario: Callable[[str], Path],
) -> Luh:
    write_scenario(SCENARIO)
    (tmp_path / "tiny.config").write_text(FRAGMENT)
    (tmp_path / "tiny.yaml").write_text(
        f"source:\n  - tree: {history.tree}\nfragments: [{tmp_path}/tiny.config]\n"
    )
    return Luh(tmp_path, history, small_store)


def planted(words: str) -> str:
    return f'const char fault_{words.partition("=")[0].lower()}[] = "{words}";'


@pytest.mark.parametrize(
    ("fault", "side", "says"),
    [
        ("FAULT=lost_page", "to", "page"),
        pytest.param("FAULT=errno", "from", "EPERM", marks=pytest.mark.long),
        pytest.param("FAKE_QEMU_AGAIN=panic=0.2", "to", "general protection fault", marks=pytest.mark.long),
    ],
)
def test_a_fault_is_found_on_its_side(luh: Luh, fault: str, side: str, says: str) -> None:
    """In eight commits, of which one does not compile and one does not boot."""
    faults = {1: "int nothing = ;", 3: planted("FAKE_QEMU=panic=0"), 5: planted(fault)}
    luh.history.grow(8, faults, mends={2: 1, 4: 3})
    tree = luh.history.tree
    status, said = luh(
        "bisect", "--tree", tree, "--good", "HEAD~8", "--bad", "HEAD", "--confidence", "0", *luh.how
    )
    assert status == 0, said
    assert "kernel: fault 5" in said.partition("The first bad commit")[2]
    assert f"({side})" in said
    assert says in said
    assert "reverting it on the bad end mends it" in said
    # Of a dozen commits, each met two series of ours once that do not apply to it.
    assert len(list((luh.directory / "runs").iterdir())) < 50
    (mail,) = (luh.directory / "bisections/latest").resolve().glob("mail-*.txt")
    assert "To: An Author" in mail.read_text()


def test_it_is_the_command_of_the_user_s_own_bisection(luh: Luh) -> None:
    luh.history.grow(6, {1: "int nothing = ;", 3: planted("FAULT=lost_page")}, mends={2: 1})
    words = " ".join(map(str, (sys.executable, "-P", "-m", "harness.cli", "bisect", "--run", *luh.how)))
    env = {"PYTHONPATH": str(ROOT), "LUH_STORE": str(luh.store.root), "LUH_RUNS": str(luh.directory / "runs")}
    script = f"git bisect start HEAD HEAD~6; git bisect run {words}; git bisect log; git bisect reset"
    said = command.run(
        ["sh", "-ec", script],
        cwd=luh.history.tree,
        env={**IDENTITY, **env, "PATH": os.environ["PATH"]},
        deadline=Deadline.after(900, "git bisect run"),
    ).output
    assert "first bad commit: [" in said
    assert "kernel: fault 3" in said.partition("# first bad commit")[2]


@pytest.mark.parametrize("words", [("--no-such-option",), ("--kernel", "nowhere"), ("--scenario", "nothing")])
def test_a_mistake_is_no_judgement_for_git(luh: Luh, words: tuple[str, ...]) -> None:
    assert luh("bisect", "--run", *words, cwd=luh.history.tree)[0] == 128


def test_a_patch_of_a_series_is_found(luh: Luh) -> None:
    luh.history.grow(5, {3: planted("FAULT=lost_page")})
    luh.history.git("git format-patch -q -o ../series HEAD~5; git checkout -q --detach HEAD~5")
    status, said = luh("bisect", "--series", luh.directory / "series", "--confidence", "0", *luh.how)
    assert status == 0, said
    assert "kernel: fault 3" in said.partition("The first bad commit")[2]


def test_an_option_is_found_with_what_it_pulls_in(luh: Luh) -> None:
    """MEMFD_CREATE is at fault; it can only be had with PRINTK, which is off in the good configuration."""
    fork = luh.history.tree / "kernel/fork.c"
    (luh.history.tree / "Makefile").write_text(
        (luh.history.tree / "Makefile")
        .read_text()
        .replace(
            "$(KCPPFLAGS)",
            "$$(sed -n 's/^CONFIG_\\(\\w*\\)=y$$/-D\\1/p' $(out)/.config)",
        )
    )
    fork.write_text(fork.read_text() + f"#ifdef MEMFD_CREATE\n{planted('FAULT=lost_page')}\n#endif\n")
    good, bad = luh.directory / "good", luh.directory / "bad"
    good.write_text("CONFIG_EXPERT=y\n# CONFIG_PRINTK is not set\n")
    bad.write_text("CONFIG_EXPERT=y\nCONFIG_PRINTK=y\nCONFIG_MEMFD_CREATE=y\nCONFIG_VIRTUALIZATION=y\n")
    status, said = luh("bisect", "--good-config", good, "--bad-config", bad, "--confidence", "0", *luh.how)
    assert status == 0, said
    found = said.partition("The options that make the difference")[2]
    assert "CONFIG_MEMFD_CREATE: n -> y" in found
    assert "CONFIG_PRINTK: n -> y" in found
    assert "CONFIG_VIRTUALIZATION" not in found


def test_a_plan_says_what_it_takes(luh: Luh) -> None:
    luh.history.grow(8, {})
    words = ("bisect", "--tree", luh.history.tree, "--good", "HEAD~8", "--bad", "HEAD", "--dry-run")
    status, said = luh(*words, *luh.how)
    assert status == 0
    assert "8 between them" in said
    assert "about 3, and 5 for the ends" in said
