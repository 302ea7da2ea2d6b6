# SPDX-License-Identifier: GPL-2.0-or-later
"""What a console is read as: which kernel speaks, what belongs to a report, what is nobody's report."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.case import Death, Ending
from harness.crash.console import findings, read
from harness.crash.excerpt import LINES, excerpt, heading

BANNER = "[    0.000000] Linux version 7.3.4 (luh@luh)"
KEXEC = "[    9.000000] kexec_core: Starting new kernel"
OOPS = (
    "[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000010",
    "[    1.0] #PF: supervisor read access in kernel mode",
    "[    1.0] Oops: Oops: 0000 [#1] SMP",
    "[    1.0] RIP: 0010:kvm_gmem_fault+0x11/0x20",
    "[    1.0] RSP: 0018:ffffc90000013d28 EFLAGS: 00010246",
    "[    1.0] Call Trace:",
    "[    1.0]  __do_fault+0x30/0x90",
    "[    1.0] ---[ end trace 0000000000000000 ]---",
)
FATAL = "[    1.0] Kernel panic - not syncing: Fatal exception"


def console(*lines: str) -> Iterator[tuple[float, str]]:
    return ((float(number), line) for number, line in enumerate(lines))


@pytest.mark.parametrize(
    "line",
    [
        "[    0.000000] Linux version 7.3.4",
        "[    0.1] luo: version luo-v5",
        "[    0.1] BUGs are mitigated",
        "[    0.1] rcu: Hierarchical RCU implementation.",
        "[    0.1] Spectre V2 : WARNING-free",
        "[    0.1] DMAR: no panic here",
        "[    0.1] Kernel command line: oops=panic panic=-1",
        "[    0.1] lkdtm: Performing direct entry WARNING",
        "",
    ],
)
def test_ordinary_lines_are_no_findings(line: str) -> None:
    assert findings(console(BANNER, line)) == ()


def test_a_panic_that_follows_from_a_report_is_part_of_it() -> None:
    (finding,) = findings(console(BANNER, *OOPS, FATAL))
    assert finding.title == "BUG: unable to handle kernel NULL pointer dereference in kvm_gmem_fault"
    assert finding.function == "kvm_gmem_fault+0x11/0x20"
    assert (finding.kind, finding.number, finding.at) == ("oops", 1, 1.0)
    assert finding.before == (BANNER,)


def test_a_panic_of_its_own_is_one() -> None:
    (finding,) = findings(
        console(BANNER, "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on 0:0")
    )
    assert finding.title == "panic: VFS: Unable to mount root fs on N:N"


def test_each_kernel_has_findings_of_its_own() -> None:
    warning = "[    2.0] WARNING: mm/a.c:7 at f+0x1/0x2, CPU#0: python3/7"
    found = findings(console(BANNER, warning, KEXEC, BANNER, warning, warning, KEXEC, BANNER, warning))
    assert [(one.kernel, one.count) for one in found] == [(0, 1), (1, 2), (2, 1)]
    assert {one.title for one in found} == {"WARNING in f"}
    assert heading(found[1]) == "WARNING in f, after kexec 1, mm/a.c:7, 2 times"


def test_who_comes_by_a_reset_is_the_first_kernel_again() -> None:
    assert read(console(BANNER, KEXEC, BANNER)).kernel == 1
    assert read(console(BANNER, KEXEC, BANNER, "[ 5.0] reboot: Restarting system", BANNER)).kernel == 0


@pytest.mark.parametrize(
    ("lines", "death", "kind", "title"),
    [
        ((BANNER, "all is well"), Death.RESET, "triple-fault", "triple fault in f"),
        ((BANNER, "[ 1.0] reboot: Restarting system"), Death.RESET, "reboot", "the host rebooted"),
        ((BANNER, KEXEC), Death.RESET, "purgatory", "died between the kernels: triple fault in f"),
        ((BANNER, KEXEC), Death.HANG, "purgatory", "died between the kernels: hang in f"),
        ((BANNER, "x"), Death.HANG, "hang", "hang in f"),
        ((BANNER, "x"), Death.POWEROFF, "poweroff", "the machine was switched off in f"),
        ((), Death.RESET, "triple-fault", "triple fault before the first word in f"),
        ((BANNER, *OOPS), Death.HANG, "hang", "hang in f"),
    ],
)
def test_a_death_that_nothing_tells_of_is_a_finding(
    lines: tuple[str, ...], death: Death, kind: str, title: str
) -> None:
    found = findings(console(*lines), Ending(death, 9.0), "f+0x1/0x2")[-1]
    assert (found.kind, found.title, found.at) == (kind, title, 9.0)


def test_a_death_that_a_report_tells_of_is_none() -> None:
    assert len(findings(console(BANNER, *OOPS, FATAL), Ending(Death.RESET, 9.0))) == 1


def test_a_panic_that_halts_for_good_is_one_finding() -> None:
    assert len(findings(console(BANNER, *OOPS, FATAL), Ending(Death.HANG, 9.0))) == 1


def test_the_next_kernels_death_is_not_explained_by_the_old_ones_report() -> None:
    found = findings(console(BANNER, *OOPS, KEXEC, BANNER, "x"), Ending(Death.RESET, 9.0))
    assert [(one.kind, one.kernel) for one in found] == [("oops", 0), ("triple-fault", 1)]


def test_lines_of_another_cpu_do_not_name_the_function() -> None:
    lines = (
        "[    1.0][    T7] BUG: kernel NULL pointer dereference, address: 0",
        "[    1.0][    C1] RIP: 0010:idle+0x1/0x2",
        "[    1.0][    T7] RIP: 0010:kvm_gmem_fault+0x11/0x20",
    )
    (finding,) = findings(console(BANNER, *lines))
    assert finding.title.endswith("in kvm_gmem_fault")
    assert finding.lines == lines


def test_a_cpu_that_is_locked_up_is_shown_by_itself() -> None:
    lines = (
        "[    1.0][    C0] watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1",
        "[    1.1][    C1] NMI backtrace for cpu 1",
        "[    1.1][    C1] RIP: 0010:kvm_gmem_drain+0x1/0x2",
    )
    (finding,) = findings(console(BANNER, *lines))
    assert finding.title == "BUG: hard lockup in kvm_gmem_drain"


def test_kmemleaks_own_prefix_does_not_hide_who_allocated() -> None:
    lines = (
        "[    1.0] kmemleak: unreferenced object 0xffff888000163198 (size 8):",
        "[    1.0] kmemleak:   backtrace (crc bea23b04):",
        "[    1.0] kmemleak:     __kmalloc_cache_noprof+0x2b4/0x4a0",
        "[    1.0] kmemleak:     kvm_gmem_preserve+0x1a/0x40",
    )
    (finding,) = findings(console(BANNER, *lines))
    assert finding.title == "memory leak in kvm_gmem_preserve"


def test_an_excerpt_leaves_the_registers_out() -> None:
    (finding,) = findings(console(BANNER, "one", "two", *OOPS, FATAL))
    text = "\n".join(excerpt(finding))
    assert len(excerpt(finding)) <= LINES
    assert "two" in text
    assert "RIP: 0010:kvm_gmem_fault" in text
    assert "EFLAGS" not in text


def test_a_flood_takes_linear_time() -> None:
    """Ten times as many lines take about ten times as long, whatever is in them."""

    def seconds(count: int) -> float:
        lines = list(
            console(BANNER, *OOPS, *("[ 2.0] BUG: Bad page state in process x  pfn:12" for _ in range(count)))
        )
        started = time.process_time()
        (_, flood) = findings(lines)
        assert flood.count == count
        return time.process_time() - started

    seconds(1_000)
    short, long = seconds(10_000), seconds(100_000)
    assert long < 25 * short
    assert long < 15
