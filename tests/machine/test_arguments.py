# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line and the kernels', from a bench."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import Accelerator, AcceleratorChoice, Access, Bench, GiB, MachineSpec
from harness.machine.arguments import Wires, command, command_line

WIRES = Wires(qmp=7, console=8, agent=9)


def values(bench: Bench, option: str) -> list[str]:
    """What the command line gives for an option, each time it is there."""
    argv = command("qemu", bench, WIRES)
    return [value for word, value in itertools.pairwise(argv) if word == option]


def test_the_first_kernel_is_booted_and_the_next_is_a_disk(bench: Bench) -> None:
    assert values(bench, "-kernel") == [str(bench.kernel.vmlinux)]
    disks = values(bench, "-drive")
    assert disks == [
        f"if=none,id=root,format=raw,readonly=on,file={bench.image.path}",
        f"if=none,id=next-kernel,format=raw,readonly=on,file={bench.next_kernel.bzimage}",
    ]
    devices, disk = values(bench, "-device"), "virtio-blk-pci,disable-legacy=on,num-queues=1"
    assert devices[0] == f"{disk},drive=root,serial=root", "the root disk has to be vda"
    assert f"{disk},drive=next-kernel,serial=next-kernel" in devices


def test_modules_of_both_kernels_are_disks_of_their_own(bench: Bench) -> None:
    old, new = (
        replace(kernel, modules=Path(f"/{kernel.name}/m")) for kernel in (bench.kernel, bench.next_kernel)
    )
    disks = values(replace(bench, kernel=old, next_kernel=new), "-drive")
    assert disks[2:] == [
        "if=none,id=modules,format=raw,readonly=on,file=/from/m",
        "if=none,id=next-modules,format=raw,readonly=on,file=/to/m",
    ]


def test_the_wires_become_sockets_that_are_inherited(bench: Bench) -> None:
    assert values(bench, "-chardev") == [
        "socket,id=qmp,fd=7",
        "socket,id=console,fd=8",
        "socket,id=agent,fd=9",
    ]
    assert "virtserialport,id=port,chardev=agent,name=luh.agent" in values(bench, "-device")
    assert "virtio-serial-pci,disable-legacy=on,max_ports=2" in values(bench, "-device")


def test_a_reset_ends_the_machine_and_a_panic_runs_to_its_end(bench: Bench) -> None:
    assert values(bench, "-action") == ["reboot=shutdown,shutdown=pause,panic=none,watchdog=none"]
    assert "panic=-1" in command_line(bench).split()


def test_a_comma_in_a_path_does_not_end_the_option(bench: Bench) -> None:
    image = replace(bench.image, path=Path("/a,b/image"))
    assert values(replace(bench, image=image), "-drive")[0].endswith("file=/a,,b/image")


@pytest.mark.parametrize(
    ("accelerator", "accel", "processor"),
    [
        (Accelerator.KVM, "kvm", "host"),
        (Accelerator.TCG, "tcg,thread=multi,tb-size=48", "max,+svm,-erms,-la57"),
    ],
)
def test_both_accelerators_give_the_guest_a_cpu_that_nests(
    bench: Bench, accelerator: Accelerator, accel: str, processor: str
) -> None:
    chosen = replace(bench, choice=AcceleratorChoice(accelerator, ""))
    assert values(chosen, "-accel") == [accel]
    assert values(chosen, "-cpu") == [processor]


def test_kernels_with_checks_have_all_the_room_for_translated_code(bench: Bench) -> None:
    slow = replace(bench.kernel, slowness=4.0)
    assert values(replace(bench, next_kernel=slow), "-accel") == ["tcg,thread=multi"]


def test_emulated_kernels_are_told_what_they_would_measure(bench: Bench) -> None:
    assert "lpj=" not in command_line(bench)
    choice, kernel = replace(bench.choice, tsc=2445400), replace(bench.kernel, hz=250)
    told = replace(bench, choice=choice, kernel=kernel, next_kernel=kernel)
    assert " tsc_early_khz=2445400 lpj=9781600 " in command_line(told)
    # A loop that is of the right length for one of two kernels is not for the other.
    other = replace(told, next_kernel=replace(kernel, hz=1000))
    assert " tsc_early_khz=2445400 " in command_line(other)
    assert "lpj=" not in command_line(other)


def test_emulated_kernels_boot_on_one_cpu_and_init_brings_the_others(bench: Bench) -> None:
    emulated = replace(bench, choice=AcceleratorChoice(Accelerator.TCG, ""))
    assert " maxcpus=1 luh.online " in command_line(emulated)
    nesting = replace(bench, choice=AcceleratorChoice(Accelerator.KVM, ""))
    checking = replace(emulated, next_kernel=replace(bench.kernel, slowness=4.0))
    # Who asks for fewer CPUs gets them.
    fewer = replace(emulated, machine=MachineSpec(cpus=4, kernel_parameters=("maxcpus=2",)))
    for other in (nesting, checking, fewer):
        assert "luh.online" not in command_line(other)


def test_firmware_speaks_on_the_console_where_that_is_wanted(bench: Bench) -> None:
    assert not any("mux" in value for value in values(bench, "-chardev"))
    spoken = replace(bench, access=Access(firmware=True))
    assert "socket,id=console,fd=8,mux=on" in values(spoken, "-chardev")
    assert "isa-debugcon,iobase=0x402,chardev=console" in values(spoken, "-device")


def test_one_node_needs_no_memory_objects(bench: Bench) -> None:
    assert values(bench, "-m") == ["1024M"]
    assert values(bench, "-numa") == values(bench, "-object") == []


def test_nodes_share_memory_and_cpus(bench: Bench) -> None:
    machine = MachineSpec(memory=1 * GiB, cpus=4, numa_nodes=3)
    spread = replace(bench, machine=machine)
    assert values(spread, "-object") == [
        "memory-backend-ram,id=memory0,size=342M",
        "memory-backend-ram,id=memory1,size=341M",
        "memory-backend-ram,id=memory2,size=341M",
    ]
    assert values(spread, "-numa") == [
        "node,nodeid=0,memdev=memory0,cpus=0,cpus=3",
        "node,nodeid=1,memdev=memory1,cpus=1",
        "node,nodeid=2,memdev=memory2,cpus=2",
    ]


def test_every_cpu_has_a_socket(bench: Bench) -> None:
    spread = replace(bench, machine=MachineSpec(cpus=4))
    assert values(spread, "-smp") == ["4,sockets=4"]


def test_a_node_may_have_no_cpu(bench: Bench) -> None:
    machine = MachineSpec(cpus=1, numa_nodes=2)
    assert values(replace(bench, machine=machine), "-numa")[1] == "node,nodeid=1,memdev=memory1"


def test_kernels_that_check_themselves_say_where_a_task_hangs(bench: Bench) -> None:
    assert "loglevel=6" in command_line(bench).split()
    slow = replace(bench, next_kernel=replace(bench.next_kernel, slowness=2.5))
    assert "loglevel=7" in command_line(slow).split()


def test_nodes_are_known_to_a_kernel_that_does_without_acpi(bench: Bench) -> None:
    assert "acpi=force" not in command_line(bench).split()
    nodes = replace(bench, machine=MachineSpec(memory=2 * GiB, cpus=2, numa_nodes=2))
    assert "acpi=force" in command_line(nodes).split()


def test_the_spec_has_the_last_word_on_the_kernel_command_line(bench: Bench) -> None:
    machine = MachineSpec(kernel_parameters=("loglevel=8", "kho=off"))
    words = command_line(replace(bench, machine=machine)).split()
    assert words[-2:] == ["loglevel=8", "kho=off"]
    assert {"kho=on", "liveupdate=on", "console=ttyS0", "init=/init"} <= set(words)
