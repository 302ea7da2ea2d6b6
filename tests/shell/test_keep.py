# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh run --keep` in front of a terminal: a prompt where a scenario failed, and the run goes on after it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from harness import command
from harness.case import silent
from harness.deadline import Deadline
from harness.doctor import need
from harness.store import Store

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
COLUMNS = 60
SCENARIOS = """\
def test_fails(host):
    found = host.files.memfd(4096)
    found.fill(seed=1)
    assert found is None, "on purpose"


def test_passes(host):
    host.files.memfd(4096).fill(seed=1)
"""
PROMPT = ">>> "
COLOUR = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def words(
    tiny_kernel: Path, write_scenario: Callable[[str], Path], standin: object, tmp_path: Path
) -> list[str]:
    need(("busybox",), allowed=False, progress=silent)
    scenarios = str(write_scenario(SCENARIOS))
    runs = str(tmp_path / "runs")
    return [
        "-P",
        "-m",
        "harness.cli",
        "run",
        "--keep",
        scenarios,
        "--kernel",
        str(tiny_kernel),
        "--runs",
        runs,
    ]


@pytest.fixture
def environment(small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pexpect hands ours on."""
    for name, value in {
        "PYTHONPATH": str(ROOT),
        "LUH_STORE": str(small_store.root),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "xterm-256color",
        "NO_COLOR": "1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def person(words: list[str], environment: None) -> Iterator[pexpect.spawn[str]]:
    """The command on a terminal of sixty columns."""
    child = pexpect.spawn(
        sys.executable, words, timeout=SECONDS, encoding="utf-8", dimensions=(40, COLUMNS), echo=False
    )
    try:
        yield child
    finally:
        child.close(force=True)


def said(child: pexpect.spawn[str], wanted: str | type[pexpect.EOF]) -> str:
    """What came up to that, as lines of text."""
    child.expect(wanted)
    text = child.before or ""
    assert not COLOUR.search(text)
    return text.replace("\r\n", "\n")


def test_the_machine_is_there_where_the_scenario_failed(person: pexpect.spawn[str]) -> None:
    told = said(person, PROMPT)
    assert "in test_fails" in told
    assert "on purpose" in told
    assert "names are here: host, found." in told
    assert "exit goes on with the run" in told
    person.sendline("found.veri\t(seed=1); found.size + 1")
    said(person, "4097")
    person.sendline("found.verify(seed=2)")
    said(person, "MemoryDiffers: .*page 0")
    person.sendline('"monotonic" in host.call("host.clock")')
    said(person, "True")
    person.sendline("exit")
    rest = said(person, pexpect.EOF)
    assert "1 passed, 1 failed" in rest or "1 failed, 1 passed" in rest
    # The verdict tells what the scenario did, and not what was typed.
    assert "on purpose" in rest
    assert "memory.fill" in rest.partition("last operations:")[2]
    assert "host.clock" not in rest.partition("last operations:")[2]
    person.close()
    assert person.exitstatus == 1


def test_an_interruption_at_the_prompt_is_no_end(person: pexpect.spawn[str]) -> None:
    said(person, PROMPT)
    person.send("found.veri\x03")
    said(person, PROMPT)
    person.sendline("import time; print(6 * 7); time.sleep(60)")
    said(person, "42")
    person.sendintr()
    said(person, "interrupted")
    person.sendeof()
    assert "on purpose" in said(person, pexpect.EOF)


def test_without_a_terminal_there_is_nobody_to_keep_it_for(words: list[str], environment: None) -> None:
    done = command.run([sys.executable, *words], deadline=Deadline.after(SECONDS, "luh"), check=False)
    assert done.status == 2
    assert "--keep needs a terminal" in done.output
