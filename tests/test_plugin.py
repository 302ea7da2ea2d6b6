# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario gets from the plugin, and what is made of how it ends. The agent and pytest are real."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Bench, Outcome, ScenarioResult, Stage
from harness.crew import hired
from harness.exchange import Collected, Ended, Event, Step, Uncollected
from harness.layout import Layout

Run = Callable[[str], ScenarioResult]
# The stand-in goes to its next kernel when the agent dies; the host that runs the tests refuses a real kexec.
UPDATE = """
import os, time
from harness.guest.kexec import go
def live_update(host):
    os.kill(host.identity.agent_pid, 9)
    return go(host, host.deadline(1.0, "kexec"), time.monotonic(), "host.hello")
"""


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def run_file(paper_bench: Bench, events: list[Event], standin: object) -> Callable[[Path], int]:
    """Runs a file of scenarios on QEMU's stand-in; returns pytest's status, and fills `events`."""

    def run(path: Path) -> int:
        with hired((str(path),), Layout.here(), paper_bench.directory, time.monotonic()) as crew:
            crew.begin(paper_bench)
            return crew.follow(paper_bench, events.append)

    return run


@pytest.fixture
def run(run_file: Callable[[Path], int], events: list[Event], write_scenario: Callable[[str], Path]) -> Run:
    """Runs the single scenario of a body."""

    def run(body: str) -> ScenarioResult:
        run_file(write_scenario(body))
        (result,) = (event.result for event in events if isinstance(event, Ended))
        return result

    return run


def test_pass_has_everything_on_record(run: Run, paper_bench: Bench) -> None:
    result = run(
        """
@pytest.mark.rules("P1", "K3")
def test_it(host, seed):
    memory = host.files.memfd(1 << 20)
    memory.fill(seed=seed)
    memory.verify(seed=seed)
    host.measure("answer", 42)
"""
    )
    assert (result.outcome, result.reason, result.detail) == (Outcome.PASS, "", "")
    assert result.name == "test_own.py::test_it"
    assert result.rules == ("P1", "K3")
    assert result.measurements == (("answer", 42.0),)
    assert result.bytes_verified == 0  # nothing was live-updated
    (boot,) = result.phases
    assert boot.name == "boot"
    assert 0 < boot.start < boot.start + boot.seconds <= result.seconds + boot.start
    traces = paper_bench.directory / result.traces
    assert {path.name for path in traces.iterdir()} >= {"console.log", "qemu.argv", "qemu.log"}


ENDS = (
    ("assert 1 + 1 == 3", Outcome.FAIL, "assert (1 + 1) == 3"),
    ("pytest.skip('no such thing')", Outcome.SKIP, "no such thing"),
    ("raise KernelError('it is wrong')", Outcome.FAIL, "it is wrong"),
    ("raise InfraError('the disk is gone')", Outcome.BROKEN, "the disk is gone"),
    ("undefined", Outcome.BROKEN, "NameError: name 'undefined' is not defined"),
    ("host.call('no.such')", Outcome.FAIL, "no.such: ENOSYS (the agent has no operation no.such)"),
    ("host.call('files.close')", Outcome.BROKEN, "the agent failed at files.close: TypeError"),
    ("with pytest.raises(KernelError): pass", Outcome.FAIL, "DID NOT RAISE"),
)


def test_whose_fault_an_error_is(
    run_file: Callable[[Path], int], events: list[Event], write_scenario: Callable[[str], Path]
) -> None:
    scenarios = (
        f"def test_{number}(host):\n    {statement}\n" for number, (statement, *_) in enumerate(ENDS)
    )
    run_file(write_scenario("".join(scenarios)))
    results = [event.result for event in events if isinstance(event, Ended)]
    for result, (statement, outcome, reason) in zip(results, ENDS, strict=True):
        assert (result.outcome, result.reason[: len(reason)]) == (outcome, reason)
        if outcome is not Outcome.SKIP:
            assert f": in {result.name.partition('::')[2]}" in result.detail
            assert statement in result.detail


def test_detail_has_the_error_s_own_and_the_last_operations(run: Run) -> None:
    result = run(
        """
def test_it(host):
    memory = host.files.memfd(1 << 20)
    memory.fill(seed=7)
    memory.swap_pages(3, 9)
    memory.verify(seed=7)
"""
    )
    assert result.outcome is Outcome.FAIL
    assert "page 3: holds page 9's content" in result.reason
    assert "first at offset 0x3000" in result.detail
    assert "last operations:" in result.detail
    assert "memory.swap_pages" in result.detail


def test_needs_are_found_out_by_trying_and_only_once(
    run_file: Callable[[Path], int], events: list[Event], write_scenario: Callable[[str], Path]
) -> None:
    run_file(
        write_scenario(
            """
pytestmark = pytest.mark.needs("preserve_vm")
@pytest.mark.parametrize("number", [1, 2])
def test_it(host, number):
    raise AssertionError("must not run")
"""
        )
    )
    results = [event.result for event in events if isinstance(event, Ended)]
    assert [result.outcome for result in results] == [Outcome.SKIP] * 2
    assert results[0].reason == results[1].reason
    assert "this kernel cannot preserve a VM" in results[0].reason
    assert [len(result.phases) for result in results] == [1, 0]


def test_scenario_chooses_its_machine(run: Run, paper_bench: Bench) -> None:
    result = run(
        """
@pytest.mark.machine(memory=2 << 30, cpus=4, kernel_parameters=("quiet",))
def test_it(bench, host):
    assert bench.machine.cpus == 4
"""
    )
    assert result.outcome is Outcome.PASS
    argv = (paper_bench.directory / result.traces / "qemu.argv").read_text()
    assert "-m 2048M" in argv
    assert "-smp 4" in argv
    assert "quiet" in argv


@pytest.mark.parametrize(
    ("mood", "body", "stage"),
    [
        ("panic=0", "def test_it(host):\n    pass\n", Stage.BOOT),
        (
            "kexec",
            UPDATE + "def test_it(host):\n    live_update(host)\n    raise CrashError('x')\n",
            Stage.SCENARIOS,
        ),
        ("mute", UPDATE + "def test_it(host):\n    live_update(host)\n", Stage.KEXEC),
    ],
)
def test_where_a_kernel_stopped_is_on_record(
    run: Run, standin: Callable[..., None], mood: str, body: str, stage: Stage
) -> None:
    standin(mood if mood != "mute" else "")
    assert run(body).stage is stage


def test_live_update_is_on_record(run: Run, paper_bench: Bench) -> None:
    result = run(
        """
def test_it(host):
    old = host
    host = old.live_update()
    assert host.identity.boot_id != old.identity.boot_id
"""
    )
    # The stand-in's kernels cannot be loaded by kexec_file_load(2): the host that runs the tests refuses.
    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("kexec.load: ")


@pytest.mark.parametrize(
    ("mood", "outcome", "reason"),
    [
        (
            "panic=0.3",
            Outcome.FAIL,
            "general protection fault in kvm_gmem_fault, in the first kernel",
        ),
        ("reset=0.3", Outcome.FAIL, "triple fault, in the first kernel"),
        ("loop=0.3", Outcome.FAIL, "hang, in the first kernel"),
        ("exit=0.3", Outcome.BROKEN, "QEMU ended by itself: status 3"),
        ("refuse", Outcome.BROKEN, "QEMU does not start"),
    ],
)
def test_machine_that_dies(
    run: Run, standin: Callable[..., None], mood: str, outcome: Outcome, reason: str
) -> None:
    standin(mood)
    result = run("import time\ndef test_it(host):\n    time.sleep(0.6)\n    host.memory_free(settle=False)\n")
    assert (result.outcome, result.reason) == (outcome, reason)
    if "panic" in mood:
        assert "kvm_gmem_fault" in result.detail


def test_kernel_that_complains_fails_although_the_scenario_passes(run: Run) -> None:
    # The stand-in prints its command line on the console.
    mark = (
        '@pytest.mark.machine(kernel_parameters=("\\nWARNING: mm/page_alloc.c:4321 at free_pages+0x1/0x2",))'
    )
    result = run(f"{mark}\ndef test_it(host):\n    pass\n")
    assert result.outcome is Outcome.FAIL
    assert result.reason == "WARNING in free_pages, in the first kernel, mm/page_alloc.c:4321"
    (finding,) = result.findings
    assert (finding.kind, finding.kernel) == ("warning", 0)


def test_agent_that_does_not_answer_at_the_end_is_no_pass(run: Run) -> None:
    result = run(
        """
import os
def test_it(host):
    os.kill(host.identity.agent_pid, 9)
"""
    )
    assert result.outcome in (Outcome.FAIL, Outcome.BROKEN)


def test_steps_are_told_while_it_runs(run: Run, events: list[Event]) -> None:
    run("def test_it(host):\n    pass\n")
    assert isinstance(events[0], Collected)
    texts = [event.text for event in events if isinstance(event, Step)]
    assert texts[:2] == ["", "booting"]
    assert texts[-1] == "powering off"


def test_unknown_rule_is_a_mistake_of_the_scenario(
    run_file: Callable[[Path], int], write_scenario: Callable[[str], Path], paper_bench: Bench
) -> None:
    status = run_file(write_scenario('@pytest.mark.rules("X9")\ndef test_it():\n    pass\n'))
    assert status == 4
    assert "the contract has no rule X9" in (paper_bench.directory / "pytest.log").read_text()


def test_file_that_cannot_be_imported_is_told(
    run_file: Callable[[Path], int], events: list[Event], write_scenario: Callable[[str], Path]
) -> None:
    run_file(write_scenario("import no_such_module\n"))
    (trouble,) = (event for event in events if isinstance(event, Uncollected))
    assert "no_such_module" in trouble.detail


def test_interrupted_scenario_leaves_no_machine(
    run_file: Callable[[Path], int], write_scenario: Callable[[str], Path], paper_bench: Bench
) -> None:
    body = "import os\ndef test_it(host):\n    os.kill(os.getpid(), 15)\n    host.memory_free()\n"
    assert run_file(write_scenario(body)) == 2
    image = str(paper_bench.image.path)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        assert image not in entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
