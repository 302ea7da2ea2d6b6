# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for QEMU: it takes the same command line, speaks QMP, has a console and starts the real agent
as a local process where QEMU would boot a kernel.

$FAKE_QEMU holds words that make it misbehave. Those with `=SECONDS` happen so long after the start:
  refuse            print an error and end with status 1       old        be QEMU 5.2
  mute              never greet on QMP                         silent     boot no agent
  stubborn          ignore SIGTERM and QMP's quit              flood      print 50,000 lines on the console
  panic=S reset=S reboot=S poweroff=S    what a guest does     stuck=S    stop with an internal error
  exit=S            end with status 3                          die=S      be killed
  kexec             when the agent ends, start another one with another boot id
  loop=S            a CPU loops with interrupts off             halt=S     all CPUs are halted
  unsaved           refuse to be migrated                      unloaded   end when it is migrated to
  sluggish=S        let S seconds pass before each word of the agent

A migration carries the boot id, and the agent that goes on does not say hello again.
A kernel that was built with such words in it, after the text FAKE_QEMU=, misbehaves so when it boots, and
with those after FAKE_QEMU_AGAIN= only when it comes up by kexec.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = (sys.executable, "-m", "harness.agent")
BANNER = "Linux version 7.3.4-fake (luh@luh) (gcc 12) #1 SMP PREEMPT"
PANIC = """\
Oops: general protection fault: 0000 [#1] SMP
RIP: 0010:kvm_gmem_fault+0x11/0x20
Kernel panic - not syncing: Fatal exception
---[ end Kernel panic - not syncing: Fatal exception ]---"""


IN_KERNEL = 0xFFFFFFFF81234567


def _cpu(number: int, address: int, *, flags: int = 0x246, halted: int = 0, stack: int = 7) -> str:
    """A CPU in the words of QEMU's monitor (target/i386/cpu-dump.c)."""
    zeros = " ".join(f"{name}=" + "0" * 16 for name in ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP"))
    others = " ".join(f"{name:3}=" + "0" * 16 for name in ("R8", "R9", *(f"R{n}" for n in range(10, 16))))
    state = f"RIP={address:016x} RFL={flags:08x} [-------] CPL=0 II=0 A20=1 SMM=0 HLT={halted}"
    return f"CPU#{number}\r\n{zeros} RSP={stack:016x}\r\n{others}\r\n{state}\r\n"


_stacks = itertools.count()


def getting_on() -> str:
    return _cpu(0, IN_KERNEL, stack=next(_stacks))


def moods(text: str | None = None) -> dict[str, float]:
    """The words of the text, or of $FAKE_QEMU, with their seconds (0 where none are given)."""
    text = os.environ.get("FAKE_QEMU", "") if text is None else text
    pairs = (word.partition("=") for word in text.split())
    return {word: float(seconds or 0) for word, _, seconds in pairs}


def planted(kernel: str, *, again: bool) -> dict[str, float]:
    """The words that a built kernel has in it; none of a kernel that is a name only."""
    path = Path(kernel)
    data = path.read_bytes() if path.is_file() else b""
    marker = rb"FAKE_QEMU(?:_AGAIN)?=([\w=. ]*)" if again else rb"FAKE_QEMU=([\w=. ]*)"
    return {word: value for text in re.findall(marker, data) for word, value in moods(text.decode()).items()}


class FakeQemu:
    def __init__(self, argv: list[str]) -> None:
        self.moods = moods()
        options = dict(itertools.pairwise(argv))
        self.command_line = options["-append"]
        self.reboot_ends = "reboot=shutdown" in options["-action"]
        disks = [value for option, value in itertools.pairwise(argv) if option == "-drive"]
        (following,) = (disk.partition("file=")[2] for disk in disks if "id=next-kernel" in disk)
        self.kernels = (options["-kernel"], following)
        self.agent: subprocess.Popen[bytes] | None = None
        self.cpus: Callable[[], str] = getting_on
        values = [value for option, value in itertools.pairwise(argv) if option == "-chardev"]
        self.wires = {name: socket.socket(fileno=fd) for name, fd in map(_socket_chardev, values)}
        self.status = "running"
        self.boot_id = str(uuid.uuid4())
        self.waits = options.get("-incoming") == "defer"
        self.guest: socket.socket | None = None
        self.lock = threading.Lock()

    # ---- QMP ----

    def serve(self) -> None:
        """Greet and answer commands; the harness may hang up, which ends nothing."""
        if "mute" in self.moods:
            time.sleep(3600)
        version = {"major": 5 if "old" in self.moods else 7, "minor": 2, "micro": 0}
        self.tell({"QMP": {"version": {"qemu": version, "package": ""}, "capabilities": []}})
        for request in _objects(self.wires["qmp"]):
            self.answer(request)
        signal.pause()

    def answer(self, request: dict[str, Any]) -> None:
        match request["execute"]:
            case "qmp_capabilities":
                self.reply(request, {})
                if not self.waits:
                    self.power_on()
            case "query-status":
                self.reply(request, {"status": self.status, "running": self.status == "running"})
            case str(command) if command.startswith(("migrate", "query-migrate")):
                self.migrate(request)
            case "human-monitor-command":
                self.reply(request, self.cpus())
            case "stop" | "cont":
                self.reply(request, {})
            case "dump-guest-memory":
                _write_dump(Path(request["arguments"]["protocol"].removeprefix("file:")))
                self.reply(request, {})
            case "quit" if "stubborn" not in self.moods:
                self.reply(request, {})
                self.event("SHUTDOWN", guest=False, reason="host-qmp-quit")
                os._exit(0)
            case "quit":
                pass
            case _:
                self.refuse(request)

    def migrate(self, request: dict[str, Any]) -> None:
        match request["execute"]:
            case "migrate-set-capabilities" if "unsaved" in self.moods:
                self.refuse(request)
            case "migrate-set-capabilities":
                self.reply(request, {})
            case "migrate":
                Path(_file(request)).write_text(self.boot_id)
                self.reply(request, {})
            case "query-migrate":
                self.reply(request, {"status": "completed"})
            case "migrate-incoming" if "unloaded" in self.moods:
                self.reply(request, {})
                print("qemu-system-x86_64: load of migration failed", file=sys.stderr, flush=True)
                os._exit(1)
            case "migrate-incoming":
                self.reply(request, {})
                self.boot_id = Path(_file(request)).read_text()
                self.power_on()

    def refuse(self, request: dict[str, Any]) -> None:
        desc = f"The command {request['execute']} has not been found"
        self.tell({"error": {"class": "CommandNotFound", "desc": desc}, "id": request.get("id")})

    def reply(self, request: dict[str, object], value: object) -> None:
        self.tell({"return": value, **({"id": request["id"]} if "id" in request else {})})

    def event(self, name: str, **data: object) -> None:
        self.tell({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def tell(self, message: dict[str, object]) -> None:
        with self.lock:
            self.wires["qmp"].sendall(json.dumps(message).encode() + b"\r\n")

    # ---- the guest ----

    def power_on(self) -> None:
        self.suffer(self.moods)
        self.later(0, self.boot)

    def suffer(self, moods: dict[str, float]) -> None:
        for mood, seconds in moods.items():
            if act := getattr(self, f"do_{mood}", None):
                self.later(seconds, act)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()

    def say(self, text: str) -> None:
        self.wires["console"].sendall("".join(f"{line}\r\n" for line in text.splitlines()).encode())

    def boot(self) -> None:
        """Kernel after kernel, each with an agent of its own."""
        first, following = self.kernels
        for number, kernel in enumerate(itertools.chain([first], itertools.repeat(following))):
            own = planted(kernel, again=number > 0)
            self.suffer(own)
            if not self.waits:
                self.say(f"{BANNER}\nKernel command line: {self.command_line}")
                if "flood" in self.moods:
                    self.say("\n".join(f"flood {number}" for number in range(50_000)))
                if "silent" in self.moods | own:
                    return
            self.run_agent()
            if "kexec" not in self.moods:
                return
            self.say("kexec_core: Starting new kernel")
            self.waits, self.boot_id = False, str(uuid.uuid4())

    def run_agent(self) -> None:
        """The agent, until it ends; one that was migrated has said hello before."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            listened, self.guest = self.guest is not None, ours
            if not listened:
                self.later(0, self.listen)
            pause = self.moods.get("sluggish", 0.0)
            spoken = (ours, self.wires["agent"], self.waits, pause)
            speak = threading.Thread(target=_relay, args=spoken, daemon=True)
            self.agent = subprocess.Popen(
                # A guest does not outlive its QEMU.
                ["setpriv", "--pdeathsig", "KILL", "--", *AGENT, "--stream", str(theirs.fileno())],
                env={**os.environ, "LUH_BOOT_ID": self.boot_id, "PYTHONPATH": str(REPOSITORY)},
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            speak.start()
            if self.status != "running":
                self.freeze()
            self.agent.wait()
            speak.join()
            if self.status != "running":
                signal.pause()

    def listen(self) -> None:
        """Pass the harness's bytes on to the agent that runs; one reader, so that none gets another's."""
        assert self.guest
        with contextlib.suppress(OSError):
            while data := self.wires["agent"].recv(1 << 16):
                with contextlib.suppress(OSError):
                    self.guest.sendall(data)
            self.guest.shutdown(socket.SHUT_WR)

    # ---- what it can suffer ----

    def do_panic(self) -> None:
        self.say(PANIC)
        self.event("GUEST_PANICKED", action="run")
        self.end("guest-reset")

    def do_reboot(self) -> None:
        self.say("reboot: Restarting system")
        self.end("guest-reset")

    def do_reset(self) -> None:
        self.end("guest-reset")

    def do_poweroff(self) -> None:
        self.end("guest-shutdown")

    def do_stuck(self) -> None:
        self.status = "internal-error"
        self.event("STOP")

    def do_exit(self) -> None:
        print("qemu-system-x86_64: a disk is gone", file=sys.stderr, flush=True)
        os._exit(3)

    def do_die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_loop(self) -> None:
        self.freeze()
        self.cpus = lambda: _cpu(0, IN_KERNEL, flags=0x46)

    def do_halt(self) -> None:
        self.freeze()
        self.cpus = lambda: _cpu(0, IN_KERNEL, flags=0x46, halted=1)

    def freeze(self) -> None:
        if self.agent:
            self.agent.send_signal(signal.SIGSTOP)

    def end(self, reason: str) -> None:
        """The guest ends, and QEMU stays with its memory (-action shutdown=pause)."""
        if reason != "guest-reset" or self.reboot_ends:
            self.status = "shutdown"
            self.freeze()
            self.event("SHUTDOWN", guest=True, reason=reason)
            self.event("STOP")


def _socket_chardev(value: str) -> tuple[str, int]:
    """Name and descriptor of `socket,id=NAME,fd=NUMBER`."""
    kind, *settings = value.split(",")
    named = dict(setting.split("=", 1) for setting in settings)
    assert kind == "socket", value
    return named["id"], int(named["fd"])


def _write_dump(path: Path) -> None:
    """A flattened kdump with nothing behind its header, which names the machine and not the system."""
    header = b"KDUMP   " + struct.pack("<i", 6) + bytes(4 * 65) + b"x86_64".ljust(2 * 65, b"\0")
    head = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    end = struct.pack(">qq", -1, -1)
    path.write_bytes(head.ljust(4096, b"\0") + struct.pack(">qq", 0, len(header)) + header + end)
    path.chmod(0o400)


def _file(request: dict[str, Any]) -> str:
    """The file of a migration to or from `exec:cat FILE`."""
    return shlex.split(request["arguments"]["uri"])[-1]


def _relay(agent: socket.socket, port: socket.socket, greeted: bool, pause: float) -> None:
    """From an agent to the port until it ends, but for the hello of one that has said it before."""
    data = b""
    with contextlib.suppress(OSError):
        while greeted and b"\n" not in data and (more := agent.recv(1 << 16)):
            data += more
        time.sleep(pause)
        port.sendall(data.partition(b"\n")[2])
        while data := agent.recv(1 << 16):
            time.sleep(pause)
            port.sendall(data)


def _objects(stream: socket.socket) -> Iterator[dict[str, object]]:
    """The JSON objects of a stream; QMP's need nothing between them."""
    pending = ""
    while data := stream.recv(1 << 16):
        pending += data.decode()
        while pending := pending.lstrip():
            try:
                value, end = json.JSONDecoder().raw_decode(pending)
            except ValueError:
                break
            pending = pending[end:]
            yield value


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print(f"QEMU emulator version {'5' if 'old' in moods() else '7'}.2.0")
        return
    if "refuse" in moods():
        sys.exit("qemu-system-x86_64: -device pvpanic-pci: 'pvpanic-pci' is not a valid device model name")
    if "stubborn" in moods():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    FakeQemu(argv).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
