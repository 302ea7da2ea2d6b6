# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that no sane program makes, in orders that nobody thought of, against a model of what must come.

At stake: the ioctls are open to every program that may use the device, with its bugs. Whatever it passes,
the kernel answers with an error or does what it promised; it never falls over, loses memory, or mixes up
whose file is whose. Every choice follows from the seed (`luh run --seed`): a failure can be had again.
"""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from harness.guest.errors import RemoteError
from harness.guest.resources import File, GuestMemfd, LiveUpdateSession, Vm
from harness.guest.session import Session
from selftests.vms import PAGE

pytestmark = pytest.mark.needs("preserve_vm", "preserve_guest_memfd")

STEPS = 300
UPDATES = 2
NAMES = tuple(f"fuzz{number}" for number in range(4))
TOKENS = range(6)
GUESTS = 6
SIZE = 64 * PAGE
# include/uapi/linux/liveupdate.h
SESSION_CALLS: tuple[int, ...] = (0xBA40, 0xBA41, 0xBA42, 0xBA43)
DEVICE_CALLS: tuple[int, ...] = (0xBA00, 0xBA01)
BODY = 1016
# What a call with arguments that mean nothing may answer.
REFUSALS = (errno.EINVAL, errno.ENOENT, errno.EBADF, errno.EFAULT, errno.E2BIG, errno.ENOTTY, errno.EEXIST)


@dataclass(slots=True)
class Guest:
    """A VM and its memory. session: the name of the one that has the file, "" if none has."""

    number: int
    vm: Vm
    memory: GuestMemfd
    seed: int
    where: dict[str, str] = field(default_factory=lambda: {"vm": "", "memory": ""})

    def file(self, part: str) -> File:
        return self.vm if part == "vm" else self.memory


class Model:
    """The sessions and guests of a host, and which call must give which error."""

    def __init__(self, host: Session, seed: int) -> None:
        self.host = host
        self.choose = random.Random(seed)
        self.sessions: dict[str, LiveUpdateSession] = {}
        self.content: dict[str, dict[int, tuple[Guest, str]]] = {}
        self.guests: list[Guest] = []
        self.log: list[str] = []
        self.made = 0
        self.device = host.liveupdate.device

    def step(self) -> None:
        actions: tuple[Callable[[], None], ...] = (
            self.create, self.close, self.preserve, self.preserve, self.preserve,
            self.make, self.drop, self.allocate, self.write, self.garbage,
        )  # fmt: skip
        self.choose.choice(actions)()

    def expect(self, number: int, what: str, call: Callable[[], object]) -> object:
        """The call has to fail with that errno, or to succeed where it is 0."""
        self.log.append(f"{what}: {errno.errorcode.get(number, 'ok')}")
        try:
            result = call()
        except RemoteError as error:
            assert error.errno == number, self.story(error.message)
            return None
        assert number == 0, self.story("it succeeded")
        return result

    def story(self, end: str) -> str:
        return "\n".join([end, *self.log[-12:]])

    # ---- what can be done ----------------------------------------------------------------------

    def create(self) -> None:
        name = self.choose.choice(NAMES)
        wanted = errno.EEXIST if name in self.sessions else 0
        made = self.expect(wanted, f"create {name}", lambda: self.host.liveupdate.create_session(name))
        if isinstance(made, LiveUpdateSession):
            self.sessions[name], self.content[name] = made, {}

    def close(self) -> None:
        if not self.sessions or self.choose.random() < 0.6:
            return
        self.close_sessions([self.choose.choice(sorted(self.sessions))])

    def make(self) -> None:
        if len(self.guests) < GUESTS:
            vm = self.host.kvm.create_vm()
            memory = vm.create_guest_memfd(SIZE, mmap=True, init_shared=True)
            guest = Guest(self.made, vm, memory, self.choose.randint(1, 1000))
            self.made += 1
            memory.fill(seed=guest.seed, length=SIZE // 2)
            self.guests.append(guest)

    def drop(self) -> None:
        """Close a guest's descriptors, preserved or not."""
        free = [one for one in self.guests if not any(one.where.values())]
        if free and self.choose.random() < 0.3:
            guest = self.choose.choice(free)
            self.guests.remove(guest)
            guest.vm.close()
            guest.memory.close()

    def preserve(self) -> None:
        if not self.sessions or not self.guests:
            return
        name, token = self.choose.choice(sorted(self.sessions)), self.choose.choice(TOKENS)
        guest, part = self.choose.choice(self.guests), self.choose.choice(("vm", "memory"))
        wanted = errno.EBUSY if guest.where[part] else 0
        wanted = errno.EEXIST if token in self.content[name] else wanted
        what = f"preserve {part} {guest.number} in {name} as {token}"
        self.expect(wanted, what, partial(self.sessions[name].preserve, guest.file(part), token=token))
        if not wanted:
            guest.where[part] = name
            self.content[name][token] = guest, part

    def allocate(self) -> None:
        if self.guests:
            guest = self.choose.choice(self.guests)
            wanted = errno.EPERM if guest.where["memory"] else 0
            place = (SIZE // 2 + self.choose.randrange(16) * PAGE, PAGE)
            self.expect(wanted, f"allocate {guest.number}", lambda: guest.memory.fallocate(*place))
            self.expect(wanted, f"punch {guest.number}", lambda: guest.memory.punch_hole(*place))

    def write(self) -> None:
        """Memory that is there can be written at any time."""
        if self.guests:
            guest = self.choose.choice(self.guests)
            guest.seed = self.choose.randint(1, 1000)
            guest.memory.fill(seed=guest.seed, length=SIZE // 2)

    def garbage(self) -> None:
        """An ioctl with bytes of no meaning; it changes nothing."""
        target: File = self.device
        calls = DEVICE_CALLS
        if self.sessions and self.choose.random() < 0.7:
            target, calls = self.sessions[self.choose.choice(sorted(self.sessions))], SESSION_CALLS
        size = self.choose.choice((0, 4, 7, 8, 15, 16, 17, 72, 80, 4096, 0xFFFFFFFF))
        # No descriptor, and a name that is empty or does not end.
        body = self.choose.choice((bytes(BODY), self.choose.randbytes(BODY).replace(b"\0", b"\1")))
        argument = struct.pack("=Ii", size, -1) + body
        request = self.choose.choice((*calls, self.choose.randrange(0xBA00, 0xBA80)))
        self.log.append(f"garbage {request:#x}, size {size:#x}")
        try:
            target.ioctl(request, argument)
        except RemoteError as error:
            assert error.errno in REFUSALS, self.story(error.message)

    # ---- from kernel to kernel ------------------------------------------------------------------

    def torn(self) -> list[str]:
        """Sessions that have a memory, but not its VM: reboot(KEXEC) has to refuse (rule K1)."""
        return [
            name
            for name, content in self.content.items()
            if any(part == "memory" and guest.where["vm"] != name for guest, part in content.values())
        ]

    def close_sessions(self, names: list[str]) -> None:
        for name in names:
            self.log.append(f"close {name}")
            self.sessions.pop(name).close()
            for guest, part in self.content.pop(name).values():
                guest.where[part] = ""

    def update(self) -> None:
        """Go to the next kernel, if need be after a refusal, and fetch everything in some order."""
        self.host.kexec.load()
        if torn := self.torn():
            self.expect(errno.ENOENT, f"reboot with {torn}", self.host.kexec.reboot)
            self.close_sessions(torn)
        self.verify()
        self.log.append("reboot")
        self.host, content = self.host.kexec.reboot(), self.content
        self.device = self.host.liveupdate.device
        self.sessions, self.content, self.guests = {}, {}, []
        for name in self.choose.sample(sorted(content), len(content)):
            self.fetch(name, content[name])

    def fetch(self, name: str, content: dict[int, tuple[Guest, str]]) -> None:
        session = self.host.liveupdate.retrieve_session(name)
        found: dict[int, dict[str, File]] = {}
        for token in self.choose.sample(sorted(content), len(content)):
            guest, part = content[token]
            if self.choose.random() < 0.8:
                vm = part == "vm"
                file = session.retrieve_vm(token) if vm else session.retrieve_guest_memfd(token)
                found.setdefault(guest.number, {})[part] = file
        for token in set(TOKENS) - set(content):
            self.expect(errno.ENOENT, f"retrieve {token} of {name}", partial(session.retrieve, token))
        session.finish()
        session.close()
        seeds = {guest.number: guest.seed for guest, _ in content.values()}
        for number, parts in found.items():
            own_vm, memory = parts.get("vm"), parts.get("memory")
            if isinstance(own_vm, Vm) and isinstance(memory, GuestMemfd):
                self.guests.append(Guest(number, own_vm, memory, seeds[number]))
                own_vm.bind(memory, gpa=0, slot=0)
                own_vm.unbind(0)
            elif isinstance(memory, GuestMemfd):
                memory.verify(seed=seeds[number], length=SIZE // 2)

    def verify(self) -> None:
        """All that is known of every guest."""
        for guest in self.guests:
            guest.memory.verify(seed=guest.seed, length=SIZE // 2)

    def give_back(self) -> None:
        """Close everything."""
        self.close_sessions(list(self.sessions))
        for guest in self.guests:
            guest.vm.close()
            guest.memory.close()
        self.guests.clear()


@pytest.mark.rules("H3", "P5", "F1", "F4", "F5", "K1")
def test_calls_against_a_model(host: Session, seed: int) -> None:
    """Random calls give what a model says, in each of three kernels, and lose neither content nor memory."""
    model = Model(host, seed)
    for _ in range(20):
        model.step()
    # The kernel keeps what so many VMs at once have of its per-CPU memory, which comes in pieces of 2 MiB.
    while len(model.guests) < GUESTS:
        model.make()
    model.give_back()
    free = host.memory_free()
    for _ in range(STEPS):
        model.step()
    model.verify()
    model.give_back()
    host.memory_returned(free)
    for _ in range(UPDATES):
        for _ in range(STEPS // 2):
            model.step()
        model.update()
        model.verify()
    model.give_back()


@pytest.mark.rules("H3")
@pytest.mark.lane("long")
@pytest.mark.parametrize("variant", range(10))
def test_more_calls_against_a_model(host: Session, seed: int, variant: int) -> None:
    """The same, ten times as long, from ten more seeds."""
    model = Model(host, seed * 1000 + variant)
    for _ in range(UPDATES):
        for _ in range(10 * STEPS):
            model.step()
        model.update()
        model.verify()
    model.give_back()
    model.host.memory_free()


@pytest.mark.rules("H3")
def test_bytes_of_no_meaning(host: Session, seed: int) -> None:
    """Thousands of malformed requests, on the device and on a session, are refused and change nothing."""
    model = Model(host, seed)
    model.make()
    session = host.liveupdate.create_session(NAMES[0])
    model.sessions[NAMES[0]], model.content[NAMES[0]] = session, {}
    guest = model.guests[0]
    session.preserve(guest.vm, token=1 << 40)
    session.preserve(guest.memory, token=1 << 41)
    free = host.memory_free()
    for _ in range(2000):
        model.garbage()
    host.memory_returned(free)
    session = (host := host.live_update()).liveupdate.retrieve_session(NAMES[0])
    session.retrieve_guest_memfd(1 << 41).verify(seed=guest.seed, length=SIZE // 2)
    session.finish()
