# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that scenarios make, and the steps that most of them share."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from harness.case import MiB
from harness.guest.child import Child
from harness.guest.errors import RemoteError
from harness.guest.resources import File, GuestMemfd, LiveUpdateSession, Vcpu, Vm
from harness.guest.session import Session

PAGE = 4096
SIZE = 4 * MiB
VM, MEMORY = 1, 2
NAME = "vm0"
# What LUO says (luo_file_deserialize, kernel/liveupdate/luo_file.c) when it knows no handler for a file.
MISSING_HANDLER = re.compile(r"No registered handler for compatible '[^']+'")
CGROUPS = "/sys/fs/cgroup"
GROUP = f"{CGROUPS}/vmm"


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM, its memory at guest physical address 0, and a vCPU that runs on it."""

    vm: Vm
    memory: GuestMemfd
    vcpu: Vcpu


def make_guest(host: Session, size: int = SIZE) -> Guest:
    """A guest whose memory can be preserved; all of it is a hole."""
    vm = host.kvm.create_vm()
    return start_guest(vm, vm.create_guest_memfd(size, mmap=True, init_shared=True))


def start_guest(vm: Vm, memory: GuestMemfd) -> Guest:
    """Show the VM its memory and give it a vCPU: what is due again after a retrieve (rule K4)."""
    vm.bind(memory, gpa=0, slot=0)
    return Guest(vm, memory, vm.create_vcpu())


def preserve(host: Session, guest: Guest, name: str = NAME) -> LiveUpdateSession:
    """An outgoing session with the guest in it, tokens VM and MEMORY."""
    return preserve_files(host, {VM: guest.vm, MEMORY: guest.memory}, name)


def preserve_files(host: Session, files: dict[int, File], name: str = NAME) -> LiveUpdateSession:
    """An outgoing session with files in it, by their tokens."""
    session = host.liveupdate.create_session(name)
    for token, file in files.items():
        session.preserve(file, token=token)
    return session


def retrieve(host: Session, name: str = NAME) -> tuple[LiveUpdateSession, Guest]:
    """The incoming session and the guest that `preserve` put into it, started."""
    session = host.liveupdate.retrieve_session(name)
    return session, start_guest(session.retrieve_vm(VM), session.retrieve_guest_memfd(MEMORY))


def says_what_is_missing(host: Session) -> bool:
    """Whether the log names a handler of the VM or its memory that this kernel does not have (rule R7)."""
    return any(MISSING_HANDLER.search(line) for line in host.kernel_log())


def confined(host: Session, limit: int) -> Child:
    """An agent in a memory control group of its own."""
    try:
        host.files.put_text(f"{CGROUPS}/cgroup.subtree_control", "+memory")
        host.files.mkdir(GROUP)
    except RemoteError:
        pytest.skip("this kernel has no memory control groups")
    host.liveupdate.close()
    child = host.spawn()
    host.files.put_text(f"{GROUP}/cgroup.procs", str(child.identity.agent_pid))
    host.files.put_text(f"{GROUP}/memory.max", str(limit))
    return child
