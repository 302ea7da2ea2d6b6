# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU is told, and what the kernels are told: pure functions from a Bench to words.

Nothing here touches the machine, so that a command line can be looked at and tested without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.case import Accelerator, Access, Bench, MachineSpec, MiB

PROGRAM = "qemu-system-x86_64"
AGENT_PORT = "luh.agent"
ROOT_DISK = "root"
NEXT_KERNEL_DISK = "next-kernel"
KEYS_DISK = "keys"
# In QEMU's user network (-netdev user), where 10.0.2.2 is the machine that QEMU runs on.
GUEST_ADDRESS = "10.0.2.15"
MODULES_DISK, NEXT_MODULES_DISK = "modules", "next-modules"

# q35 boots and kexecs a third faster than pc under TCG (1.2 s against 1.8 s, and 1.4 s against 2.1 s); its
# controllers that nothing uses are left out, because each costs the kernel a probe.
MACHINE = "q35,usb=off,sata=off,smbus=off,vmport=off"

# What a driver would set up at each boot, and nothing uses: a virtio device's older interface, a disk's queue
# for each CPU, and 31 ports with two queues each. The console of the ways in is port 0, the agent's is 1.
MODERN = "disable-legacy=on"
DISK, PORTS = f"virtio-blk-pci,{MODERN},num-queues=1", f"virtio-serial-pci,{MODERN},max_ports=2"

# Room for translated code, in MiB. With enough of it QEMU keeps the old kernel's, and takes it out bit by bit
# as the next kernel uses that memory; at each bit, every CPU forgets where all other code is. Where two
# kernels do not fit, the old one's goes at once. Kernels with checks are more code, and need the room.
TRANSLATED = 48


@dataclass(frozen=True, slots=True)
class Wires:
    """The descriptors of the stream sockets that QEMU inherits, as it knows them."""

    qmp: int
    console: int
    agent: int
    terminal: int | None = None
    debugger: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        wires = (self.qmp, self.console, self.agent, self.terminal, self.debugger)
        return tuple(descriptor for descriptor in wires if descriptor is not None)


@dataclass(frozen=True, slots=True)
class Memory:
    """Files that a machine's memory is mapped from, one for each node.

    shared: what the guest writes goes into them, as they are to be a snapshot's. Otherwise they are a
    snapshot's: the machine waits for the rest of its state, and what the guest writes stays its own.
    """

    directory: Path
    shared: bool


def command(program: str, bench: Bench, wires: Wires, memory: Memory | None = None) -> tuple[str, ...]:
    """QEMU's whole command line; program is its path.

    A reset ends the guest (-action reboot=shutdown), so what comes back in the same process came by kexec,
    which QEMU does not see; unless the machine is one that resets. QEMU stays then, so that registers and
    memory can be looked at (shutdown=pause). A panic is reported by pvpanic and then runs to its end
    (panic=none), so that the console has all of it; `panic=-1` on the kernel's command line turns that end
    into a reset.
    """
    return (
        program,
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _machine(bench.machine, memory)),
        *_accelerator(bench),
        *("-smp", _cpus(bench.machine)),
        *_memory(bench.machine, memory),
        *("-action", f"{_reboot(bench.machine)},shutdown=pause,panic=none,watchdog=none"),
        *("-kernel", str(bench.kernel.vmlinux), "-append", command_line(bench)),
        *_disk(ROOT_DISK, bench.image.path),
        *_disk(NEXT_KERNEL_DISK, bench.next_kernel.bzimage),
        *(word for disk in bench.disks for word in _disk(disk.name, disk.path)),
        *_disk(MODULES_DISK, bench.kernel.modules),
        *_disk(NEXT_MODULES_DISK, bench.next_kernel.modules),
        *_socket("qmp", wires.qmp),
        *("-mon", "chardev=qmp,mode=control"),
        *_socket("console", wires.console, shared=bench.access.firmware),
        *("-serial", "chardev:console"),
        *_socket("agent", wires.agent),
        *("-device", PORTS),
        *("-device", f"virtserialport,id=port,chardev=agent,name={AGENT_PORT}"),
        *("-device", "pvpanic-pci"),
        *(("-device", "vmcoreinfo") if bench.vmcore else ()),
        *_access(bench.access, wires),
        *(("-incoming", "defer") if memory and not memory.shared else ()),
    )


def command_line(bench: Bench) -> str:
    """The kernels' command line, the same for the boot and for the kexec.

    Documentation/admin-guide/kernel-parameters.txt has every word of it. What the machine's spec adds comes
    last, where it wins. kho_scratch= is left at the kernel's own measure, twice of what the boot took from
    memblock (117 MiB of 1 GiB), which grows with the memory and with what a debug kernel needs.
    """
    return " ".join(
        (
            # The image: erofs on the first virtio disk, read-only, so that nothing is unpacked or copied.
            *("root=/dev/vda", "ro", "rootfstype=erofs", "init=/init"),
            # Messages from the first moment on, in both kernels. Notices and worse: they have the banner
            # and every report of a fault; the serial port costs an exit for each byte of the rest.
            *("console=ttyS0", "earlyprintk=ttyS0", *_checking(bench)),
            # What kills a thread kills the kernel, and a dead kernel resets at once: nobody waits for it.
            *("oops=panic", "panic=-1"),
            *("kho=on", "liveupdate=on"),
            # An emulated machine on a busy host makes timers look broken when they are only late.
            *("no_timer_check", "tsc=reliable", *_clock(bench), *_cpus_at_boot(bench)),
            *("mitigations=off", "random.trust_cpu=on"),
            *_reachable(bench.access),
            # Only ACPI describes nodes, and a debug kernel does without (kernel-configs/debug.config).
            *(("acpi=force",) if bench.machine.numa_nodes > 1 else ()),
            *bench.machine.kernel_parameters,
        )
    )


def _checking(bench: Bench) -> tuple[str, ...]:
    """Kernels that check themselves say more: where a task hangs is only information (sched_show_task()).

    Their page tables have four levels: identify_cpu() clears the CPU's features for a moment, and with them
    that there are five, from which KASAN computes where its shadow begins. An interrupt in that moment, which
    comes in one of 20 boots of an emulated machine, is reported as an access to wild memory.
    """
    return ("loglevel=7", "no5lvl") if bench.checking else ("loglevel=6",)


def _clock(bench: Bench) -> tuple[str, ...]:
    """What an emulated kernel would otherwise measure, at each boot and for each CPU, for 0.1 s and longer.

    The delay loop waits for the TSC, so its length follows from that, in ticks of the kernel that counts.
    """
    tsc, ticks = bench.choice.tsc, {bench.kernel.hz, bench.next_kernel.hz}
    if not tsc:
        return ()
    (hz,) = ticks if len(ticks) == 1 else (0,)
    return (f"tsc_early_khz={tsc}", *((f"lpj={tsc * 1000 // hz}",) if hz else ()))


def _cpus_at_boot(bench: Bench) -> tuple[str, ...]:
    """An emulated kernel boots on one CPU, and init brings up the others before the agent speaks.

    Who changes the kernel's code stops all CPUs for it, three times for each place (text_poke_bp()). KVM does
    that at 519 places, its static calls: 0.19 s with a second emulated CPU that idles, and 0.05 s without.
    Kernels with checks boot on all their CPUs, so that what races at boot is seen there.
    """
    own = any(word.startswith("maxcpus=") for word in bench.machine.kernel_parameters)
    if bench.choice.accelerator is Accelerator.KVM or bench.checking or own:
        return ()
    return ("maxcpus=1", "luh.online")


def _access(access: Access, wires: Wires) -> tuple[str, ...]:
    """The devices of the ways in; a socket on which gdb is awaited stops the machine before it starts."""
    words: tuple[str, ...] = ()
    if wires.terminal is not None:
        words += (*_socket("terminal", wires.terminal), "-device", "virtconsole,chardev=terminal")
    if wires.debugger is not None:
        (option, socket) = _socket("debugger", wires.debugger)
        words += (option, f"{socket},server=on,wait=off", "-gdb", "chardev:debugger", "-S")
    if access.firmware:
        # Where SeaBIOS has its debugging output.
        words += ("-device", "isa-debugcon,iobase=0x402,chardev=console")
    if access.keys:
        # Port 0: the system chooses one that is free, and QEMU says which (`forwarded_port`).
        words += ("-netdev", "user,id=network,hostfwd=tcp:127.0.0.1:0-:22")
        words += ("-device", "virtio-net-pci,netdev=network,romfile=", *_disk(KEYS_DISK, access.keys))
    return words


def _reachable(access: Access) -> tuple[str, ...]:
    """What the ways in need on the kernel's command line."""
    words: tuple[str, ...] = ()
    if access.debugger:
        words += ("nokaslr",)  # else the second kernel is not where its vmlinux says
    if access.keys:
        words += (f"ip={GUEST_ADDRESS}::10.0.2.2:255.255.255.0::eth0:off",)
    return words


def _accelerator(bench: Bench) -> tuple[str, ...]:
    if bench.choice.accelerator is Accelerator.KVM:
        return ("-accel", "kvm", "-cpu", "host")
    # With ERMS the kernel copies and clears byte by byte, and each of them is a step of its own there. LA57
    # is a fifth level of page tables to walk, after a kexec (PVH enters the first kernel behind the code that
    # would choose it).
    room = "" if bench.checking else f",tb-size={TRANSLATED}"
    return ("-accel", f"tcg,thread=multi{room}", "-cpu", "max,+svm,-erms,-la57")


def _reboot(spec: MachineSpec) -> str:
    return "reboot=reset" if spec.resets else "reboot=shutdown"


def _cpus(spec: MachineSpec) -> str:
    """A socket for each CPU. CPUs that share a cache across nodes make the kernel warn
    (arch/x86/kernel/smpboot.c, topology_sane()), and the firmware's MP table, from which a kernel without
    ACPI knows the CPUs, has one of each socket."""
    return f"{spec.cpus},sockets={spec.cpus}"


def _machine(spec: MachineSpec, memory: Memory | None) -> str:
    return f"{MACHINE},memory-backend=memory0" if memory and spec.numa_nodes == 1 else MACHINE


def _memory(spec: MachineSpec, files: Memory | None) -> tuple[str, ...]:
    """The memory and its nodes; the CPUs are dealt out to the nodes in turn."""
    total = spec.memory // MiB
    size = ("-m", f"{total}M")
    if spec.numa_nodes == 1:
        return (*size, "-object", _backend(0, total, files)) if files else size
    share, rest = divmod(total, spec.numa_nodes)
    nodes: list[str] = []
    for node in range(spec.numa_nodes):
        amount = share + (rest if node == 0 else 0)
        cpus = "".join(f",cpus={cpu}" for cpu in range(node, spec.cpus, spec.numa_nodes))
        nodes += ("-object", _backend(node, amount, files))
        nodes += ("-numa", f"node,nodeid={node},memdev=memory{node}{cpus}")
    return (*size, *nodes)


def _backend(node: int, amount: int, files: Memory | None) -> str:
    """A node's memory of that many MiB."""
    name = f"memory{node}"
    if files is None:
        return f"memory-backend-ram,id={name},size={amount}M"
    path = _escaped(files.directory / name)
    share = "on" if files.shared else "off"
    return f"memory-backend-file,id={name},size={amount}M,mem-path={path},share={share}"


def _disk(name: str, path: Path | None) -> tuple[str, ...]:
    """A read-only disk, if there is something for it; its serial is its name (/sys/block/vd?/serial)."""
    if path is None:
        return ()
    return (
        *("-drive", f"if=none,id={name},format=raw,readonly=on,file={_escaped(path)}"),
        *("-device", f"{DISK},drive={name},serial={name}"),
    )


def _escaped(path: Path) -> str:
    """A path as a value of an option: QEMU's commas separate."""
    return str(path).replace(",", ",,")


def _socket(name: str, descriptor: int, *, shared: bool = False) -> tuple[str, ...]:
    return ("-chardev", f"socket,id={name},fd={descriptor}" + ",mux=on" * shared)
