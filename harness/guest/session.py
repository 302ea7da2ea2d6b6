# SPDX-License-Identifier: GPL-2.0-or-later
"""A session: one boot of the host under test, spoken to through its agent.

The machine outlives kernels, a session does not: a kexec uses it up and gives the next one (kexec.py).
The first failure of a session sticks, because whatever comes after a crash would only hide it. That the
kernel refuses an operation (RemoteError) is no such failure.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

from harness.agent import wire
from harness.case import MiB
from harness.deadline import Deadline
from harness.errors import BootError, CrashError, DeadlineError, HarnessError, InfraError, UsageError
from harness.guest import kexec, resources
from harness.guest.errors import SessionUsedUp, UnexpectedResult, error_of
from harness.guest.journal import Call, Journal, Measurement

if TYPE_CHECKING:
    from harness.guest.child import Child

CALL_SECONDS = 10.0
SETTLE_SECONDS, SETTLE_STEP = 5.0, 0.2
MEMORY_TOLERANCE = 1 * MiB
TOKEN_BYTES, ENTROPY_BYTES = 8, 64


class Transport(Protocol):
    """The byte stream to the agent. Both raise DeadlineError, and CrashError as soon as the guest died."""

    def send(self, data: bytes, deadline: Deadline) -> None: ...

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Which boot, which kernel and which agent a session speaks to.

    kexec_count: KHO's count of kexecs since the cold boot; None where the kernel does not tell.
    """

    boot_id: str
    release: str
    version: str
    kho_enabled: bool
    kexec_count: int | None
    previous_release: str
    command_line: str
    uptime: float
    agent_pid: int
    python: str

    @classmethod
    def of(cls, hello: dict[str, Any]) -> Identity:
        """From the agent's hello (agent/host.py); InfraError where it speaks another protocol."""
        if hello.get("protocol") != wire.PROTOCOL:
            raise InfraError(
                f"the agent speaks protocol {hello.get('protocol')}, not {wire.PROTOCOL}",
                hint="its image was built by another version of the harness",
            )
        return cls(
            boot_id=hello["boot_id"],
            release=hello["release"],
            version=hello["version"],
            kho_enabled=hello["kho"]["enabled"],
            kexec_count=hello["kho"]["kexec_count"],
            previous_release=hello["kho"]["previous_release"],
            command_line=hello["cmdline"],
            uptime=hello["uptime"],
            agent_pid=hello["pid"],
            python=hello["python"],
        )


@dataclass(slots=True)
class Channel:
    """Messages over a transport; it outlives the sessions that use it one after the other."""

    transport: Transport
    _decoder: wire.Decoder = field(default_factory=wire.Decoder)
    _inbox: deque[wire.Message] = field(default_factory=deque)
    _last: int = 0

    def request(self, operation: str, arguments: dict[str, Any], deadline: Deadline) -> int:
        """Send a request and return its number."""
        self._last += 1
        message = {"id": self._last, "op": operation, "arguments": arguments}
        self.transport.send(wire.encode(message), deadline)
        return self._last

    def reply(self, number: int, deadline: Deadline) -> wire.Message:
        """The reply to a request, or the hello of an agent that came up instead."""
        while True:
            message = self._next(deadline)
            if message.get("id") == number or "hello" in message:
                return message

    def hello(self, deadline: Deadline) -> Identity:
        """The next hello."""
        while True:
            if hello := self._next(deadline).get("hello"):
                return Identity.of(hello)

    def _next(self, deadline: Deadline) -> wire.Message:
        while not self._inbox:
            self._inbox.extend(self._decoder.feed(self.transport.receive(deadline)))
        return self._inbox.popleft()


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that an agent is busy with."""

    session: Session
    operation: str
    number: int

    def result(self, seconds: float = CALL_SECONDS) -> Any:
        """Wait for the reply, at most so many seconds (scaled)."""
        return self.session.complete(self, self.session.deadline(seconds, self.operation))


class Session:
    """One boot of the host under test; what scenarios call `host`.

    command_line: what the next kernel gets at a kexec. time_scale: stretches every deadline. capabilities:
    what this boot's kernel can do, once that is known.
    """

    def __init__(
        self, channel: Channel, identity: Identity, *, command_line: str, time_scale: float, journal: Journal
    ) -> None:
        self.identity = identity
        self.command_line = command_line
        self.time_scale = time_scale
        self.journal = journal
        self.updated = False
        self.capabilities: resources.Capabilities | None = None
        self._following: Session | None = None
        self._channel = channel
        self._failure: HarnessError | None = None

    @classmethod
    def open(
        cls,
        transport: Transport,
        deadline: Deadline,
        *,
        command_line: str = "",
        time_scale: float = 1.0,
        journal: Journal | None = None,
    ) -> Self:
        """Wait for the agent of the first boot. Raises BootError where it does not come."""
        channel = Channel(transport)
        try:
            identity = channel.hello(deadline)
        except DeadlineError as error:
            raise BootError(f"the agent did not come up within the deadline: {deadline.purpose}") from error
        except CrashError as error:
            raise BootError(error.message, hint=error.hint, detail=error.detail) from error
        return cls(
            channel,
            identity,
            command_line=command_line,
            time_scale=time_scale,
            journal=journal if journal is not None else Journal(),
        )

    @classmethod
    def resume(
        cls,
        transport: Transport,
        deadline: Deadline,
        *,
        command_line: str = "",
        time_scale: float = 1.0,
        journal: Journal | None = None,
    ) -> Self:
        """Have the agent of a machine that goes on from a snapshot prove that it is alive.

        Every machine that starts from a snapshot is the same boot, with the same boot id, random state and
        time; so the agent gets a token to repeat, entropy, and the time of now. Raises BootError where it
        does not answer with this very token.
        """
        channel = Channel(transport)
        token = secrets.token_hex(TOKEN_BYTES)
        arguments = {
            "token": token,
            "entropy": {"bytes": secrets.token_hex(ENTROPY_BYTES)},
            "realtime": time.time(),
        }
        try:
            reply = channel.reply(channel.request("host.resume", arguments, deadline), deadline)
        except (DeadlineError, CrashError) as error:
            raise BootError(f"the snapshot did not come to life: {error.message}") from error
        result = reply.get("result") or {}
        if result.get("token") != token:
            said = (reply.get("error") or {}).get("message", "another token")
            raise BootError(f"the snapshot's agent did not repeat its token: {said}")
        return cls(
            channel,
            Identity.of(result["hello"]),
            command_line=command_line,
            time_scale=time_scale,
            journal=journal if journal is not None else Journal(),
        )

    def __repr__(self) -> str:
        state = f", unusable: {self._failure.message}" if self._failure else ""
        count = self.identity.kexec_count
        boot = f"boot {self.identity.boot_id[:8]}" + (f", kexec {count}" if count is not None else "")
        return f"<host: Linux {self.identity.release}, {boot}{state}>"

    def call(self, operation: str, deadline: Deadline | None = None, **arguments: Any) -> Any:
        """Have the agent perform an operation and return its result.

        Resources and bytes can be arguments; bytes come back as bytes, an object as {"handle": n}.
        Raises RemoteError where the kernel refuses, CrashError where no answer comes.
        """
        deadline = deadline or self.deadline(CALL_SECONDS, operation)
        reply = self.converse(operation, arguments, deadline)
        if "hello" in reply:
            raise self.fail(self._restarted(Identity.of(reply["hello"]), operation))
        if "error" in reply:
            raise error_of(operation, reply["error"])
        return _decode(reply["result"])

    def converse(self, operation: str, arguments: dict[str, Any], deadline: Deadline) -> wire.Message:
        """Send a request and wait for what answers it: its reply, or the hello of another agent."""
        if self._failure:
            raise self._failure
        encoded = {name: self._encode(value) for name, value in arguments.items() if value is not None}
        start = time.monotonic()
        reply: wire.Message = {}
        try:
            number = self._channel.request(operation, encoded, deadline)
            reply = self._channel.reply(number, deadline)
        except DeadlineError as error:
            hang = CrashError(f"the host did not answer within the deadline: {deadline.purpose}")
            raise self.fail(hang) from error
        except HarnessError as error:
            raise self.fail(error) from None
        finally:
            seconds, errno = time.monotonic() - start, (reply.get("error") or {}).get("errno") or 0
            self.journal.record(
                Call(
                    operation,
                    start,
                    seconds,
                    reply.get("seconds", 0.0),
                    errno,
                    self.identity.boot_id,
                    reply.get("began", 0.0),
                )
            )
        return reply

    def begin(self, operation: str, **arguments: Any) -> Pending:
        """Send a request and do not wait; nothing else can be asked of this agent before its result."""
        deadline = self.deadline(CALL_SECONDS, operation)
        if self._failure:
            raise self._failure
        encoded = {name: self._encode(value) for name, value in arguments.items()}
        return Pending(self, operation, self._channel.request(operation, encoded, deadline))

    def complete(self, pending: Pending, deadline: Deadline) -> Any:
        """The result of a request that `begin` sent."""
        try:
            reply = self._channel.reply(pending.number, deadline)
        except HarnessError as error:
            raise self.fail(error) from None
        if "error" in reply:
            raise error_of(pending.operation, reply["error"])
        return _decode(reply["result"])

    def fail(self, error: HarnessError) -> HarnessError:
        """Make an error the session's own: whoever uses it from now on gets it. Returns it, to be raised."""
        self._failure = error
        return error

    def succeed(self, identity: Identity) -> Session:
        """The session of the boot that came after this one; this one is used up."""
        following = Session(
            self._channel,
            identity,
            command_line=self.command_line,
            time_scale=self.time_scale,
            journal=self.journal,
        )
        following.updated = True
        self._following = following
        self.fail(
            SessionUsedUp(
                f"this session's kernel is gone (boot {self.identity.boot_id}): a live update used it up",
                hint="use the session that live_update() returned, and what is retrieved from it",
            )
        )
        return following

    @property
    def latest(self) -> Session:
        """The session that was reached last from this one; itself where there was no live update."""
        return self._following.latest if self._following else self

    def deadline(self, seconds: float, purpose: str) -> Deadline:
        return Deadline.after(seconds, purpose, scale=self.time_scale)

    def _encode(self, value: Any) -> Any:
        """A value in the form that the wire has for it. An object of another boot is none of this one's."""
        if isinstance(value, resources.Resource):
            if value.session is not self:
                raise UsageError(
                    f"{type(value).__name__} {value.handle} belongs to another session",
                    hint="after a live update, retrieve the objects from the new session",
                )
            return {"handle": value.handle}
        return {"bytes": value.hex()} if isinstance(value, bytes) else value

    def _restarted(self, identity: Identity, operation: str) -> HarnessError:
        if identity.boot_id == self.identity.boot_id:
            return InfraError(f"the agent died during {operation} and was started again")
        return CrashError(f"the host booted again during {operation}, which nobody asked for")

    # ---- what scenarios use --------------------------------------------------------------------

    @cached_property
    def kvm(self) -> resources.Kvm:
        return resources.Kvm(self)

    @cached_property
    def liveupdate(self) -> resources.LiveUpdateDevice:
        return resources.LiveUpdateDevice(self)

    @cached_property
    def kexec(self) -> kexec.Kexec:
        return kexec.Kexec(self)

    @cached_property
    def files(self) -> resources.Files:
        return resources.Files(self)

    def spawn(self) -> Child:
        """Start another agent in the host, with descriptors and an mm of its own."""
        from harness.guest import child

        return child.spawn(self)

    def live_update(self, *, deadline: Deadline | None = None) -> Session:
        """Load the next kernel, go there, and return its session; see kexec.py."""
        return kexec.kexec(self, self.command_line, deadline)

    def memory_free(self, *, settle: bool = True) -> int:
        """Memory in bytes that is free, or that the agent and the page cache would give back.

        It balances to some 100 KiB (agent/host.py). settle: have freed first what only waits for it.
        """
        if settle:
            self.call("host.settle")
        return sum(self.call("host.memory").values())

    def memory_returned(self, to: int, tolerance: int = MEMORY_TOLERANCE) -> int:
        """Wait until that much memory is free again; returns how much is missing, at most the tolerance.

        Some of it is freed by workers and after grace periods, so it is waited for. tolerance: what the
        kernel keeps for good when it does something for the first time, slabs and page tables. Raises
        UnexpectedResult where more stays away.
        """
        deadline = self.deadline(SETTLE_SECONDS, "the memory to come back")
        while (missing := to - self.memory_free()) > tolerance:
            if not deadline.remaining:
                raise UnexpectedResult(f"{missing} bytes of memory did not come back")
            time.sleep(SETTLE_STEP)
        return missing

    def kernel_log(self) -> list[str]:
        """The lines that the kernel has written in this boot."""
        lines: list[str] = self.call("host.kernel_log")
        return lines

    def probe(self) -> resources.Capabilities:
        """What this kernel can do, found by trying, once; for the decision to skip a scenario."""
        if self.capabilities is None:
            self.capabilities = resources.Capabilities(self.call("probe.capabilities"))
        return self.capabilities

    def measure(self, name: str, value: float) -> None:
        """Record a figure; the name ends with its unit."""
        self.journal.record(Measurement(name, value))


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"bytes"}:
            return bytes.fromhex(value["bytes"])
        return {name: _decode(item) for name, item in value.items()}
    return value
