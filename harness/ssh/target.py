# SPDX-License-Identifier: GPL-2.0-or-later
"""A real machine as the host under test, in the place of machine/qemu.py's.

The agent is copied there and started over the connection. At a kexec the connection dies with the kernel; it
is made again until the machine gives another boot id, and the next agent's hello is what comes then. Each
scenario starts on a kernel that has just been booted, by an ordinary kexec into the first of the two.
"""

from __future__ import annotations

import shlex
import socket
import threading
import time
from contextlib import ExitStack, suppress

import paramiko

from harness.agent import wire
from harness.case import Bench, MachineSpec, MiB
from harness.deadline import Deadline
from harness.errors import CrashError, DeadlineError, InfraError, UsageError
from harness.machine.console import recorded
from harness.machine.host import HostMachine
from harness.ssh.connection import connected, wait_readable
from harness.ssh.depot import Depot

CONNECT_SECONDS = 30.0
RETRY_SECONDS, RETRY_PAUSE = 5.0, 0.5
COPY_SECONDS = 600.0
REBOOT_SECONDS = 300.0
STEP_SECONDS = 30.0
# How long a host is silent before it is asked whether it is still the same boot.
PATIENCE_SECONDS, PATIENCE_AT_REBOOT = 15.0, 1.0
CHUNK = 1 << 16
WORDS_LEFT_OUT = ("BOOT_IMAGE=", "initrd=")
WORDS_NEEDED = ("kho=on", "liveupdate=on")
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
AGENT = "import sys; sys.path.insert(0, {folder!r}); from agent.__main__ import main; main(sys.argv[1:])"


class TargetMachine(HostMachine):
    """A machine that is reached by SSH, at bench.target; after its block, it stays as it is.

    Entering connects, copies what is needed and has the machine boot the first kernel. It raises UsageError
    where the server is not known or lets us not in, InfraError where it is not reached. console.log has what
    the kernels logged, as far as it came through.
    """

    def __init__(self, bench: Bench) -> None:
        assert bench.target
        super().__init__(bench)
        self._target = bench.target
        self._outgoing = wire.Decoder()
        self._leaving = False
        self._channel: paramiko.Channel

    def keep_memory(self) -> None:
        """Nothing: the memory of a real machine is for its own kdump."""

    def unfit(self, wanted: MachineSpec) -> str:
        if wanted.resets:
            return "a real machine does not start the first kernel again at a reset"
        facts = self._connection.run("nproc; grep MemTotal /proc/meminfo", self._soon("looking around"))
        cpus, memory = int(facts.split()[0]), int(facts.split()[2]) // 1024
        if wanted.cpus > cpus:
            return f"{self._target.remote} has {cpus} CPUs, and this scenario wants {wanted.cpus}"
        # Firmware and the kernel itself keep some of it.
        if wanted.memory // MiB * 0.8 > memory:
            return f"{self._target.remote} has {memory} MiB, and this scenario wants {wanted.memory // MiB}"
        if wanted.numa_nodes > 1:
            return f"this scenario wants {wanted.numa_nodes} NUMA nodes, made for it"
        return ""

    # ---- the agent's stream ---------------------------------------------------------------------

    def send(self, data: bytes, deadline: Deadline) -> None:
        for request in self._outgoing.feed(data):
            self._leaving = self._leaving or "reboot" in request["op"]
        try:
            self._channel.settimeout(deadline.check())
            self._channel.sendall(data)
        except TimeoutError:
            raise DeadlineError(f"{self._target.remote} takes nothing: {deadline.purpose}") from None
        except (OSError, paramiko.SSHException):
            pass  # `receive` finds out what became of the machine

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes from the agent, of the next boot's if the machine went there.

        Raises CrashError where the agent is gone and the machine is still the same boot.
        """
        while True:
            patience = PATIENCE_AT_REBOOT if self._leaving else PATIENCE_SECONDS
            if wait_readable(self._channel, min(patience, deadline.check())):
                data = self._read()
                if data:
                    return data
                time.sleep(RETRY_PAUSE)
            if boot_id := self._seek(deadline):
                self._arrive(boot_id)

    def _read(self) -> bytes:
        with suppress(OSError, paramiko.SSHException):
            return self._channel.recv(CHUNK)
        return b""

    def _seek(self, deadline: Deadline) -> str:
        """Another boot id, with a connection to that boot; "" if there is none now."""
        limit = Deadline(min(deadline.at, time.monotonic() + RETRY_SECONDS), "the machine to come back")
        fresh = ExitStack()
        try:
            connection = fresh.enter_context(connected(self._target.remote, limit))
            boot_id = connection.run(BOOT_ID, limit).strip()
        except UsageError:
            fresh.close()
            raise
        except InfraError:
            fresh.close()
            time.sleep(min(RETRY_PAUSE, deadline.check()))
            return ""
        if boot_id == self._boot_id:
            fresh.close()
            if self._channel.closed or self._channel.eof_received:
                said = self._words.decode(errors="replace").strip()
                raise CrashError("the agent ended, and the machine is still in the same boot", detail=said)
            return ""
        self._life.close()
        self._life.push(fresh)
        self._connection = connection
        return boot_id

    @property
    def _words(self) -> bytes:
        """What the agent said on its stderr."""
        said = b""
        while self._channel.recv_stderr_ready():
            said += self._channel.recv_stderr(CHUNK)
        return said

    # ---- its life -------------------------------------------------------------------------------

    def _start(self, stack: ExitStack) -> None:
        self.bench.directory.mkdir(parents=True, exist_ok=True)
        ours, self._sink = socket.socketpair()
        stack.callback(self._sink.close)
        self._console = stack.enter_context(
            recorded(ours, self.bench.directory / "console.log", self.powered_on)
        )
        stack.callback(self._sink.shutdown, socket.SHUT_RDWR)
        self._life = stack.enter_context(ExitStack())
        self._boot_id = ""
        first = Deadline.after(CONNECT_SECONDS, f"connecting to {self._target.remote}")
        self._connection = self._life.enter_context(connected(self._target.remote, first))
        running = self._connection.run("cat /proc/cmdline", self._soon("its command line"))
        self.command_line = _words_for_kernels(running, self.bench.machine.kernel_parameters)
        self._arrive(self._connection.run(BOOT_ID, self._soon("its boot id")).strip(), follow=False)
        self._renew()

    def _renew(self) -> None:
        """Have the machine boot the first kernel, so that nothing of what ran before is left."""
        kernel = self._depot.put(self.bench.kernel.bzimage, self._soon("copying the kernel", COPY_SECONDS))
        self._hello(self._soon("the agent's start"))
        load = {"path": kernel, "command_line": self.command_line}
        self._ask("kexec.load", load, self._soon("loading the first kernel"))
        request = {"id": 0, "op": "kexec.reboot", "arguments": {}}
        self.send(wire.encode(request), self._soon("the reboot into the first kernel"))

    def _hello(self, deadline: Deadline) -> None:
        decoder = wire.Decoder()
        while not any("hello" in message for message in decoder.feed(self.receive(deadline))):
            pass

    def _ask(self, operation: str, arguments: dict[str, str], deadline: Deadline) -> None:
        self.send(wire.encode({"id": 0, "op": operation, "arguments": arguments}), deadline)
        decoder = wire.Decoder()
        while not (replies := decoder.feed(self.receive(deadline))):
            pass
        if "error" in replies[0]:
            raise InfraError(
                f"{self._target.remote} refuses {operation}: {replies[0]['error']['message']}",
                hint="docs/remote.md says what such a machine needs",
            )

    def _arrive(self, boot_id: str, *, follow: bool = True) -> None:
        """Start the agent of a boot, and follow its kernel's log."""
        deadline = self._soon("starting the agent", COPY_SECONDS)
        self._depot = Depot.find(self._connection, deadline)
        folder = self._depot.unpack(self._target.bundle, deadline)
        kernel = self._depot.put(self.bench.next_kernel.bzimage, deadline)
        environment = f"LUH_NEXT_KERNEL={shlex.quote(kernel)} LUH_L2={shlex.quote(folder + '/l2')}"
        argv = shlex.join(["python3", "-I", "-S", "-B", "-c", AGENT.format(folder=folder), "--stdio"])
        self._channel = self._life.enter_context(
            self._connection.start(f"{environment} exec {argv}", deadline)
        )
        self._boot_id, self._leaving = boot_id, False
        self._outgoing = wire.Decoder()
        if follow:
            log = self._life.enter_context(self._connection.start("exec cat /dev/kmsg", deadline))
            log.settimeout(None)
            threading.Thread(target=self._follow, args=(log,), name="luh-kmsg", daemon=True).start()

    def _follow(self, log: paramiko.Channel) -> None:
        """Records of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) as lines of a console."""
        pending = b""
        with suppress(OSError, paramiko.SSHException):
            while data := log.recv(CHUNK):
                *records, pending = (pending + data).split(b"\n")
                self._sink.sendall(b"".join(map(_line, records)))

    def _soon(self, purpose: str, seconds: float = STEP_SECONDS) -> Deadline:
        return Deadline.after(seconds, purpose)


def _words_for_kernels(running: str, further: tuple[str, ...]) -> str:
    """The running kernel's words for those that are loaded: same root, same init, and further ones."""
    words = [word for word in running.split() if not word.startswith(WORDS_LEFT_OUT)]
    return " ".join([*words, *(word for word in (*WORDS_NEEDED, *further) if word not in words)])


def _line(record: bytes) -> bytes:
    """ "6,42,1234567,-;text" as "[    1.234567] text"; nothing for the " KEY=value" that goes with it."""
    head, _, text = record.partition(b";")
    fields = head.split(b",")
    if record.startswith(b" ") or len(fields) < 3 or not fields[2].isdigit():
        return b""
    return b"[%12.6f] %s\n" % (int(fields[2]) / 1e6, text)
