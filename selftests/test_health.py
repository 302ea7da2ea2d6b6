# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernels say about themselves while all goes well.

At stake: the first sign of memory that will be corrupt next week is a line in a log that nobody reads. Every
scenario fails on such a line; here the quieter signs are looked at as well, in both kernels.
"""

from __future__ import annotations

import re

import pytest

from harness.case import Bench, MiB
from harness.guest.errors import RemoteError
from harness.guest.session import Session
from selftests.vms import PAGE, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

# What no line of a healthy kernel has, but for kmemleak's first one.
BAD_WORDS = ("WARNING", "BUG:", "Oops", "corrupt", "bad page", "refcount", "leak")
BANNER = "kmemleak: Kernel memory leak detector initialized"


def examine(host: Session) -> None:
    """The kernel's taint, its log, and what its own checkers found, where it has them."""
    assert host.files.text("/proc/sys/kernel/tainted").strip() == "0"
    lines = (line for line in host.kernel_log() if not line.startswith(BANNER))
    assert [line for line in lines if any(word in line for word in BAD_WORDS)] == []
    assert "debug_locks:                             0" not in optional(host, "/proc/lockdep_stats")


def optional(host: Session, path: str) -> str:
    """The text of a file that only some kernels have."""
    try:
        return host.files.text(path)
    except RemoteError:
        return ""


@pytest.mark.rules("H1")
def test_kernels_have_nothing_to_say(host: Session, seed: int) -> None:
    """A guest's whole way leaves no taint, no report and no bad word in the log of either kernel."""
    guest = make_guest(host)
    guest.memory.fill(seed=seed, length=1 * MiB)
    preserve(host, guest).close()
    preserve(host, guest)
    examine(host)

    session, guest = retrieve(host := host.live_update())

    guest.memory.verify(seed=seed, length=1 * MiB)
    guest.memory.punch_hole(0, PAGE)
    session.finish()
    for file in (session, guest.vcpu, guest.memory, guest.vm):
        file.close()
    host.memory_free()
    examine(host)


@pytest.mark.rules("H1")
def test_every_processor_is_there(bench: Bench, host: Session) -> None:
    """Neither kernel comes up with fewer CPUs than the machine has: what races would not race there."""
    expected = processors(host) if bench.target else bench.machine.cpus
    assert processors(host) == processors(host.live_update()) == expected


def processors(host: Session) -> int:
    return len(re.findall(r"^cpu\d", host.files.text("/proc/stat"), re.MULTILINE))


@pytest.mark.rules("H1")
def test_a_report_would_be_seen(host: Session) -> None:
    """The examination above sees a line that the kernel was made to log."""
    host.files.put_text("/dev/kmsg", "<6>luh: refcount of nothing\n")
    with pytest.raises(AssertionError, match="refcount of nothing"):
        examine(host)
