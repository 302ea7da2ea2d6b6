# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a kernel's report against itself, and what does not."""

from __future__ import annotations

import pytest

from harness.crash.console import findings

REPORTS = {
    "panic": "[    1.234567] Kernel panic - not syncing: Fatal exception",
    "kasan": "[    1.2] BUG: KASAN: slab-use-after-free in kvm_gmem_retrieve+0x1d/0x40",
    "lockdep": "[    1.2] WARNING: possible recursive locking detected",
    "bug": "[    1.2][    T1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "ubsan": "[    1.2] UBSAN: array-index-out-of-bounds in virt/kvm/guest_memfd.c:12:3",
    "rcu": "[   60.0] rcu: INFO: rcu_sched self-detected stall on CPU",
    "hung": "[  240.0] INFO: task python3:77 blocked for more than 120 seconds.",
    "oops": "[    1.2] Oops: 0002 [#1] SMP NOPTI",
    "warning": "[    1.2] WARNING: CPU: 0 PID: 77 at mm/page_alloc.c:4321 free_pages+0x1/0x2",
    "lockup": "[   30.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [python3:77]",
}


@pytest.mark.parametrize("kind", REPORTS)
def test_report_is_found_and_shown_without_its_time(kind: str) -> None:
    (finding,) = findings(["[    0.1] booting", REPORTS[kind]])
    assert (finding.kind, finding.number) == (kind, 1)
    assert finding.line == REPORTS[kind].rpartition("] ")[2] or finding.line in REPORTS[kind]


@pytest.mark.parametrize(
    "line",
    [
        "[    0.000000] Linux version 7.3.4",
        "[    0.1] luo: version luo-v5",
        "[    0.1] BUGs are mitigated",
        "[    0.1] rcu: Hierarchical RCU implementation.",
        "[    0.1] Spectre V2 : WARNING-free",
        "[    0.1] DMAR: no panic here",
    ],
)
def test_ordinary_lines_are_no_findings(line: str) -> None:
    assert findings([line]) == ()


def test_what_follows_a_report_belongs_to_it_but_a_panic_always_shows() -> None:
    lines = [
        "[ 1.0] BUG: kernel NULL pointer dereference, address: 0",
        "[ 1.0] #PF: supervisor read access in kernel mode",
        "[ 1.0] Oops: 0000 [#1] SMP",
        "[ 1.0] Kernel panic - not syncing: Fatal exception",
    ]
    assert [finding.kind for finding in findings(lines)] == ["bug", "panic"]
