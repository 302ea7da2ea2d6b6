# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's control channel: commands and their answers, and events as they come.

The protocol is qemu.qmp's, which lives in an event loop; here that loop has a thread, so that events are
seen while the harness waits for something else.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError

CLOSE_SECONDS = 1.0
# What became of the agent's port.
OPENED, CLOSED = "opened", "closed"
STUCK = ("internal-error", "io-error")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Event:
    """An event as qapi/*.json of QEMU describes it: SHUTDOWN {"guest": ..., "reason": ...} and so on.

    at: when it was seen, on the monotonic clock.
    """

    name: str
    reason: str = ""
    at: float = field(default_factory=time.monotonic, compare=False)


class Monitor:
    """A connection to QEMU's monitor.

    on_event is called in the monitor's thread, for QEMU's events and for one of ours: STUCK, with the
    state's name as its reason, when QEMU stopped the guest because it cannot go on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_event: Callable[[Event], None]) -> None:
        self._loop = loop
        self._client = QMPClient()
        self._on_event = on_event
        self._closed = threading.Event()
        self._watches: set[asyncio.Task[None]] = set()

    def connect(self, ours: socket.socket, deadline: Deadline) -> tuple[int, int]:
        """Negotiate over our end of the socket pair, which the monitor owns from now on.

        Returns QEMU's version as (major, minor). Raises InfraError when QEMU hangs up.
        """
        self._call(self._connect(ours), deadline)
        greeting = self._client.greeting
        version: Any = greeting.QMP.version if greeting else {}
        number = version.get("qemu", {})
        return int(number.get("major", 0)), int(number.get("minor", 0))

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> object:
        """Run a QMP command and return its answer; an underscore in an argument's name stands for a hyphen.

        Raises InfraError when QEMU refuses or is gone, DeadlineError when it does not answer.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._call(self._execute(command, named), deadline)

    def wait_closed(self, seconds: float) -> bool:
        """Whether QEMU hung up; every event that it had sent has been passed on by then."""
        return self._closed.wait(seconds)

    def _call(self, work: Coroutine[Any, Any, Result], deadline: Deadline) -> Result:
        """Have the loop do it while this thread waits."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(deadline.remaining)
        except TimeoutError:
            raise DeadlineError(f"QEMU's monitor does not answer: {deadline.purpose}") from None
        except ExecuteError as error:
            raise InfraError(f"QEMU refuses a command: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise InfraError(f"QEMU's monitor hung up: {deadline.purpose}") from error
        finally:
            future.cancel()

    async def _connect(self, ours: socket.socket) -> None:
        # A filter sees each event at once and in order; none is kept.
        self._client.register_listener(EventListener(event_filter=self._see))
        await self._watch(self._client.connect(ours))
        self._watch(self._note_close())

    async def _execute(self, command: str, arguments: dict[str, object]) -> object:
        return await self._client.execute(command, arguments)

    def _see(self, message: Message) -> bool:
        name, data = str(message["event"]), message.get("data")
        self._on_event(Event(name, _reason(name, data) if isinstance(data, dict) else ""))
        if name == "STOP":
            self._watch(self._look_why_stopped())
        return False

    def _watch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it as a task that ends before the connection does."""
        task = self._loop.create_task(work)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return task

    async def _note_close(self) -> None:
        if self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        self._closed.set()

    async def _look_why_stopped(self) -> None:
        with suppress(QMPError):
            status = await self._client.execute("query-status")
            if isinstance(status, dict) and status["status"] in STUCK:
                self._on_event(Event("STUCK", status["status"]))

    async def disconnect(self) -> None:
        """Hang up; whatever the connection ended with was seen by those who waited for an answer."""
        watches = tuple(self._watches)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        if self._client.runstate is not Runstate.IDLE:
            with suppress(QMPError, OSError, EOFError):
                await self._client.disconnect()


def _reason(name: str, data: dict[str, Any]) -> str:
    if name == "VSERPORT_CHANGE":
        return OPENED if data.get("open") else CLOSED
    return str(data.get("reason", ""))


@contextmanager
def monitored(on_event: Callable[[Event], None]) -> Iterator[Monitor]:
    """A monitor, not connected yet, with its thread; both end with the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="luh-qmp", daemon=True)
    thread.start()
    monitor = Monitor(loop, on_event)
    try:
        yield monitor
    finally:
        try:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(monitor.disconnect(), loop).result(CLOSE_SECONDS)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
