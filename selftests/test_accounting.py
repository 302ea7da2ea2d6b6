# SPDX-License-Identifier: GPL-2.0-or-later
"""Who pays for restored memory, and where it is: the numbers that placement and limits rest on.

At stake: a host decides by these numbers which guest fits where. Memory that nobody is charged for after an
update is a host that is suddenly full for no reason that anybody can see, and a guest whose pages are on the
wrong node is slow for as long as it lives.
"""

from __future__ import annotations

import re

import pytest

from harness.case import GiB, MiB
from harness.guest.errors import RemoteError
from harness.guest.resources import GuestMemfd
from harness.guest.session import Session
from selftests.vms import PAGE, make_guest, preserve, retrieve

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

SIZE = 16 * MiB
GROUP = "/sys/fs/cgroup/vmm"
# What the group has beside the memory, and pages that wait on a CPU's list before they are counted.
SLACK = 1 * MiB
TWO_NODES = pytest.mark.machine(numa_nodes=2, memory=2 * GiB)


def enter_group(host: Session) -> None:
    """Put the agent itself into a control group, so that what it does is charged there."""
    try:
        host.files.put_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        host.files.mkdir(GROUP)
    except RemoteError:
        pytest.skip("this kernel has no memory control groups")
    host.files.put_text(f"{GROUP}/cgroup.procs", str(host.identity.agent_pid))


def charged(host: Session) -> dict[str, int]:
    """memory.stat of the group, in bytes."""
    lines = host.files.text(f"{GROUP}/memory.stat").splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def by_node(host: Session, name: str) -> list[int]:
    """A line of memory.numa_stat: bytes on each node."""
    lines = host.files.text(f"{GROUP}/memory.numa_stat").splitlines()
    line = next(line for line in lines if line.startswith(f"{name} "))
    return [int(value) for value in re.findall(r"N\d+=(\d+)", line)]


def resident(host: Session) -> int:
    """Bytes of guest_memfd that the agent has mapped and are there, by its smaps."""
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", host.files.text("/proc/self/smaps"), flags=re.MULTILINE)
    return sum(
        int(size) * 1024
        for area in areas
        if "kvm-gmem" in area.partition("\n")[0]
        for size in re.findall(r"^Rss: +(\d+) kB", area, flags=re.MULTILINE)
    )


def process_resident(host: Session) -> int:
    """Bytes of files and shared memory in the agent's RSS, by its status."""
    sizes = re.findall(r"^Rss(?:File|Shmem):\s+(\d+) kB", host.files.text("/proc/self/status"), re.MULTILINE)
    return sum(map(int, sizes)) * 1024


def assert_charged(host: Session, free: dict[str, int]) -> None:
    """SIZE more than before is charged to the group, as file memory that cannot be evicted."""
    now = charged(host)
    for name in ("file", "unevictable"):
        assert abs(now[name] - free[name] - SIZE) <= SLACK, f"{name}: {free[name]} -> {now[name]}"


@pytest.mark.rules("R8")
def test_restored_memory_is_charged_to_who_retrieves(host: Session, seed: int) -> None:
    """memory.stat shows a guest's pages before the update, after it and after FINISH, until its end."""
    enter_group(host)
    before = charged(host)
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    assert_charged(host, before)
    preserve(host, guest)

    host = host.live_update()

    enter_group(host)
    before = charged(host)
    session, guest = retrieve(host)
    guest.memory.settled([(0, SIZE // PAGE)])
    assert_charged(host, before)
    session.finish()
    assert_charged(host, before)
    for file in (guest.vcpu, guest.memory, guest.vm, session):
        file.close()
    after = charged(host)
    assert after["unevictable"] - before["unevictable"] <= SLACK
    host.files.put_text("/sys/fs/cgroup/cgroup.procs", str(host.identity.agent_pid))


@pytest.mark.rules("R8")
def test_restored_pages_are_resident_when_they_are_touched(host: Session, seed: int) -> None:
    """smaps and RSS count what the VMM has touched, before the update and after it, and nothing else."""
    before = process_resident(host)
    guest = make_guest(host, SIZE)
    guest.memory.fill(seed=seed)
    assert resident(host) == SIZE
    assert abs(process_resident(host) - before - SIZE) <= SLACK
    preserve(host, guest)

    host = host.live_update()

    before = process_resident(host)
    session, guest = retrieve(host)
    guest.memory.touch(0, 4 * MiB)
    assert 4 * MiB <= resident(host) <= SIZE
    guest.memory.verify(seed=seed)
    assert resident(host) == SIZE
    assert abs(process_resident(host) - before - SIZE) <= SLACK
    session.finish()
    assert resident(host) == SIZE
    guest.memory.punch_hole(0, 1 * MiB)
    assert resident(host) == SIZE - 1 * MiB
    assert abs(process_resident(host) - before - SIZE + 1 * MiB) <= SLACK


def on_node(memory: GuestMemfd, node: int, *, offset: int, length: int) -> bool:
    return set(memory.nodes(offset=offset, length=length)) == {node}


@TWO_NODES
@pytest.mark.rules("R8", "K4")
@pytest.mark.parametrize("node", [0, 1])
def test_pages_stay_on_their_node(host: Session, seed: int, node: int) -> None:
    """Pages that mbind put on a node are on that node after the update; the policy itself is gone."""
    enter_group(host)
    guest = make_guest(host, SIZE)
    guest.memory.mbind("bind", nodes=1 << node)
    guest.memory.fill(seed=seed)
    assert guest.memory.policy() == "bind"
    assert on_node(guest.memory, node, offset=0, length=1 * MiB)
    assert by_node(host, "unevictable")[node] >= SIZE - SLACK
    preserve(host, guest)

    host = host.live_update()

    enter_group(host)
    session, guest = retrieve(host)
    guest.memory.settled([(0, SIZE // PAGE)])
    assert guest.memory.policy() == "default"
    assert on_node(guest.memory, node, offset=0, length=SIZE)
    numbers = by_node(host, "unevictable")
    assert numbers[node] >= SIZE - SLACK
    assert numbers[1 - node] <= SLACK
    guest.memory.verify(seed=seed)
    session.finish()
    assert by_node(host, "unevictable")[node] >= SIZE - SLACK
    assert guest.memory.policy() == "default"
    # A policy of the new kernel holds for new pages, and leaves the others where they are.
    guest.memory.punch_hole(0, 1 * MiB)
    guest.memory.mbind("bind", nodes=1 << (1 - node))
    guest.memory.touch(0, 1 * MiB, store=True)
    assert on_node(guest.memory, 1 - node, offset=0, length=1 * MiB)
    assert on_node(guest.memory, node, offset=1 * MiB, length=1 * MiB)


@TWO_NODES
@pytest.mark.rules("R8", "K3")
def test_interleaved_pages_stay_where_they_are(host: Session, seed: int) -> None:
    """Memory that is spread over the nodes page by page comes back spread the same way."""
    guest = make_guest(host, 4 * MiB)
    guest.memory.mbind("interleave", nodes=0b11)
    guest.memory.fill(seed=seed)
    nodes = guest.memory.nodes()
    assert set(nodes) == {0, 1}
    preserve(host, guest)

    session, guest = retrieve(host.live_update())

    assert guest.memory.nodes() == nodes
    guest.vcpu.verify(guest.memory, seed=seed)
    session.finish()
