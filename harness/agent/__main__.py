# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's entry point and loop: requests come in, operations are performed, replies go out.

It never ends because of a request: whatever an operation raises is its reply.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from . import wire
from .jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

USAGE = """\
usage: python -m harness.agent [OPTION]

Performs operations on /dev/kvm, /dev/liveupdate and memory for the Live Update Harness.

  --port NAME    speak through the virtio-serial port of that name (in the guest)
  --stream FD    speak through a stream socket that was inherited as FD
  --stdio        speak through standard input and output (over SSH)
  --probe-kvm    run a vCPU; print one line of JSON; exit status 0 if it ran
  --help         show this

Without an option it takes lines of the form `OPERATION [JSON ARGUMENTS]` from standard input:

  host.hello
  files.memfd_create {"size": 1048576}
  memory.fill {"memory": {"handle": 1}, "offset": 0, "length": 1048576, "seed": 7}

Operations: %s
"""

MODULES = (
    "faults",
    "files",
    "host",
    "kexec",
    "kvm",
    "leaks",
    "liveupdate",
    "measure",
    "memory",
    "modules",
    "placement",
    "probe",
    "process",
    "race",
    "vcpu",
)
# What operations import when they are first called, but for what is large and seldom used.
LATE = ("hashlib", "select", "termios")
RETRY_SECONDS = 0.05
# guest-images/init.c
WAITS_ON = 3


class Agent:
    """The objects that requests name by handle, and the way from a request to its reply."""

    def __init__(self) -> None:
        self._objects: dict[int, object] = {}

    def answer(self, request: wire.Message) -> wire.Message:
        """Perform a request and return the reply to it."""
        started = time.monotonic()
        reply: wire.Message = {"id": request.get("id"), "began": started}
        try:
            operation = find(request["op"])
            arguments = {name: self._decode(value) for name, value in request.get("arguments", {}).items()}
            reply["result"] = self._encode(operation(**arguments))
        except Exception as error:
            reply["error"] = _describe(error)
        reply["seconds"] = time.monotonic() - started
        return reply

    def _decode(self, value: Any) -> Any:
        if isinstance(value, dict) and len(value) == 1:
            if "handle" in value:
                return self._objects[value["handle"]]
            if "bytes" in value:
                return bytes.fromhex(value["bytes"])
        return value

    def _encode(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, dict):
            return {name: self._encode(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._encode(item) for item in value]
        handle = len(self._objects) + 1
        self._objects[handle] = value
        return {"handle": handle}


def find(name: str) -> Callable[..., object]:
    """The function behind an operation's name; its module is imported when it is first asked for."""
    module, _, function = name.partition(".")
    try:
        return operations(module)[function]
    except KeyError:
        raise OSError(errno.ENOSYS, f"the agent has no operation {name}") from None


def operations(module: str) -> dict[str, Callable[..., object]]:
    if module not in MODULES:
        return {}
    imported = __import__(module, globals(), fromlist=("OPERATIONS",), level=1)
    table: dict[str, Callable[..., object]] = imported.OPERATIONS
    return table


def import_all() -> None:
    """Import all that requests may need."""
    for name in LATE:
        __import__(name)
    for module in MODULES:
        operations(module)


def serve(source: int, sink: int, *, stays: bool) -> None:
    """Say hello and answer requests until the stream ends; with `stays`, wait for the next peer then."""
    agent, decoder = Agent(), wire.Decoder()
    _send(sink, {"hello": find("host.hello")()})
    while True:
        try:
            data = os.read(source, 1 << 16)
        except OSError:
            data = b""
        if not data and not stays:
            return
        if not data:
            time.sleep(RETRY_SECONDS)
        for request in decoder.feed(data):
            _send(sink, agent.answer(request))


def by_hand() -> None:
    """Lines from a person on standard input, replies as lines of JSON."""
    agent = Agent()
    for number, line in enumerate(sys.stdin, 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        try:
            reply = agent.answer({"id": number, "op": name, "arguments": loads(text or "{}")})
        except ValueError as error:
            reply = {"id": number, "error": {"message": f"not JSON: {error}"}}
        print(dumps(reply), flush=True)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--port", name]:
            await_start()
            os.closerange(WAITS_ON, WAITS_ON + 1)
            _load_modules()
            port = _open_port(name)
            serve(port, port, stays=True)
        case ["--stream", descriptor]:
            serve(int(descriptor), int(descriptor), stays=False)
        case ["--stdio"]:
            _mount_debugfs()
            serve(0, 1, stays=False)
        case ["--probe-kvm"]:
            return _probe()
        case []:
            by_hand()
        case _:
            names = sorted(f"{module}.{name}" for module in MODULES for name in operations(module))
            print(USAGE % ", ".join(names))
            return 0 if arguments == ["--help"] else 2
    return 0


def _probe() -> int:
    from . import probe

    result = probe.run_vcpu()
    print(dumps(result))
    return 0 if result["ok"] else 1


def await_start() -> bytes:
    """What WAITS_ON brings: b"" once init, which mounts while this process starts, has closed the other end.

    So it is where an init gives no such descriptor.
    """
    try:
        return os.read(WAITS_ON, 1)
    except OSError:
        return b""


def _load_modules() -> None:
    """What they are needed for will say that it is not there; here it would say nothing."""
    if not os.path.exists("/proc/modules"):
        return  # and neither ctypes nor all else that loading takes is imported before the first word
    from . import modules

    try:
        modules.load_at_start()
    except OSError as error:
        print(f"luh-agent: cannot load the modules: {error}", file=sys.stderr)


def _open_port(name: str) -> int:
    """The virtio-serial port of that name (drivers/char/virtio_console.c), once the kernel has found it."""
    _mount_debugfs()
    while True:
        for port in _list("/sys/class/virtio-ports"):
            if _port_name(port) == name:
                return os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(RETRY_SECONDS)


def _mount_debugfs() -> None:
    from .host import mount_debugfs

    try:
        mount_debugfs()
    except OSError:
        pass  # hello says then that the kexec count is unknown


def _port_name(port: str) -> str:
    """Its name; "" as long as the machine has not said it, and for consoles, which have none."""
    from .host import text

    try:
        return text(f"/sys/class/virtio-ports/{port}/name")
    except FileNotFoundError:
        return ""


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _send(sink: int, message: wire.Message) -> None:
    """Write a frame; a peer that is gone does not get it."""
    data = memoryview(wire.encode(message))
    try:
        while data:
            data = data[os.write(sink, data) :]
    except OSError:
        pass


def _describe(error: Exception) -> dict[str, object]:
    number = error.errno if isinstance(error, OSError) else None
    return {
        "errno": number,
        "name": errno.errorcode.get(number, str(number)) if number else type(error).__name__,
        "message": str(error),
        "traceback": _trace(error.__traceback__),
    }


def _trace(trace: TracebackType | None) -> list[str]:
    """Like traceback.format_tb, whose module takes longer to import than most operations do."""
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
