# SPDX-License-Identifier: GPL-2.0-or-later
"""From a session to the next one: load a kernel, reboot into it, and prove that it is another boot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.case import LiveUpdate
from harness.deadline import Deadline
from harness.errors import CrashError, DeadlineError
from harness.guest.errors import error_of

if TYPE_CHECKING:
    from harness.guest.session import Identity, Session

UPDATE_SECONDS = 30.0
KEXEC_PHASE = "kexec to agent"


def kexec(session: Session, command_line: str, deadline: Deadline | None = None) -> Session:
    """Load the next kernel and go there; the session is used up and the new kernel's is returned.

    Raises RemoteError where the kernel refuses to load or to go: the session stays usable then. Raises
    CrashError where the next kernel does not reach its agent.
    """
    deadline = deadline or session.deadline(UPDATE_SECONDS, "live update")
    start = time.monotonic()
    with session.journal.phase("kexec load"):
        session.call("kexec.load", deadline, command_line=command_line)
    return go(session, deadline, start)


def go(
    session: Session,
    deadline: Deadline,
    start: float,
    operation: str = "kexec.reboot",
    arguments: dict[str, Any] | None = None,
) -> Session:
    """reboot(KEXEC) into what is loaded; as `kexec` otherwise. start: when the live update began.

    operation, arguments: the agent's operation that does it, where it is another than the plain one.
    """
    before = session.identity
    with session.journal.phase(KEXEC_PHASE):
        try:
            reply = session.converse(operation, arguments or {}, deadline)
        except CrashError as error:
            if not isinstance(error.__cause__, DeadlineError):
                raise
            late = CrashError("the next kernel did not reach its agent", detail=error.message)
            raise session.fail(late) from error
    if "error" in reply:
        raise error_of("kexec.reboot", reply["error"])
    following = _following(session, reply)
    after = following.identity
    session.journal.record(
        LiveUpdate(
            from_release=before.release,
            to_release=after.release,
            from_boot_id=before.boot_id,
            to_boot_id=after.boot_id,
            kexec_count=after.kexec_count or 0,
            seconds=time.monotonic() - start,
        )
    )
    return following


@dataclass(frozen=True, slots=True)
class Kexec:
    """The steps of a live update one by one, for scenarios that do them in hostile orders."""

    session: Session

    def load(self, *, command_line: str | None = None, path: str = "") -> None:
        """kexec_file_load of the machine's next kernel, or of a file in the host."""
        text = self.session.command_line if command_line is None else command_line
        self.session.call("kexec.load", command_line=text, path=path)

    def unload(self) -> None:
        self.session.call("kexec.unload")

    @property
    def loaded(self) -> bool:
        return bool(self.session.call("kexec.loaded"))

    def restart(self) -> Session:
        """An ordinary reboot, through the firmware; the machine has to be one that survives a reset."""
        deadline = self.session.deadline(UPDATE_SECONDS, "ordinary reboot")
        reply = self.session.converse("kexec.reboot", {"command": "restart"}, deadline)
        if "error" in reply:
            raise error_of("kexec.reboot", reply["error"])
        hello = reply.get("hello")
        if not isinstance(hello, dict):
            raise self.session.fail(CrashError("reboot returned without an error, and the kernel stayed"))
        return self.session.succeed(_identity(hello))

    def reboot(self, *, deadline: Deadline | None = None) -> Session:
        """reboot(KEXEC). Raises RemoteError where the kernel refuses; the session goes on then."""
        deadline = deadline or self.session.deadline(UPDATE_SECONDS, "reboot into the loaded kernel")
        return go(self.session, deadline, time.monotonic())


def _following(session: Session, reply: dict[str, object]) -> Session:
    """The next session, whose boot id and whose count of kexecs have to be others."""
    hello = reply.get("hello")
    if not isinstance(hello, dict):
        raise session.fail(CrashError("reboot(KEXEC) returned without an error, and the kernel stayed"))
    after = _identity(hello)
    if problem := _same_kernel(session.identity, after):
        raise session.fail(CrashError(problem))
    return session.succeed(after)


def _identity(hello: dict[str, object]) -> Identity:
    from harness.guest.session import Identity

    return Identity.of(hello)


def _same_kernel(before: Identity, after: Identity) -> str:
    if before.boot_id == after.boot_id:
        return "the agent came up again, but in the same boot: there was no kexec"
    if before.kexec_count is None or after.kexec_count is None or not after.kho_enabled:
        return ""
    if after.kexec_count != before.kexec_count + 1:
        return (
            f"KHO counts {after.kexec_count} kexecs after {before.kexec_count} before: the host came up "
            "by an ordinary boot"
        )
    return ""
