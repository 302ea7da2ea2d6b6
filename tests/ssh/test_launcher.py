# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's arguments for another machine, addresses, and the frames that its streams travel in."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.case import Remote
from harness.errors import UsageError
from harness.ssh.connection import parse
from harness.ssh.launcher import translated
from harness.ssh.supervisor import Frames, frame
from harness.ssh.target import _line, _words_for_kernels


def test_paths_and_descriptors_are_those_of_the_other_machine() -> None:
    argv = (
        *("/usr/bin/qemu-system-x86_64", "-kernel", "/here/a,b/vmlinux", "-drive", "file=/here/a,,b/vmlinux"),
        *("-chardev", "socket,id=qmp,fd=7", "-chardev", "socket,id=agent,fd=9", "-append", "fd=7"),
    )
    descriptors, words = translated(argv, {"/here/a,b/vmlinux": "/there/vmlinux"})
    assert descriptors == [7, 9]
    assert words[0] == "qemu-system-x86_64"
    assert words[5:] == [
        *("-chardev", "socket,id=qmp,fd={1}", "-chardev", "socket,id=agent,fd={2}"),
        *words[9:],
    ]
    assert words[4] == "file=/there/vmlinux"
    assert words[-1] == "fd=7"


def test_frames_come_whole_from_pieces_of_any_size() -> None:
    data = frame(1, b"one") + frame(255, b"") + frame(2, b"x" * 300)
    for size in (1, 2, 7, len(data)):
        frames = Frames()
        pieces = (data[start : start + size] for start in range(0, len(data), size))
        assert [one for piece in pieces for one in frames.feed(piece)] == [
            (1, b"one"),
            (255, b""),
            (2, b"x" * 300),
        ]


def test_addresses() -> None:
    assert parse("ssh://root@box") == Remote("root", "box", 22)
    assert parse("ssh://me@[::1]:2222/") == Remote("me", "::1", 2222)
    assert str(parse("ssh://me@box:2222")) == "ssh://me@box:2222"


@pytest.mark.parametrize("address", ["box", "ssh://box", "http://me@box", "ssh://me@box:x", "root@box"])
def test_what_is_no_address_is_told_with_the_form(address: str) -> None:
    with pytest.raises(UsageError, match="no address of an SSH server"):
        parse(address)


def test_missing_identity_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no key"):
        parse("ssh://me@box", identity=tmp_path / "none")


def test_kernels_get_the_words_of_the_running_one() -> None:
    running = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet initrd=/initrd.img kho=on"
    assert _words_for_kernels(running, ("panic=-1",)) == "root=UUID=1 ro quiet kho=on liveupdate=on panic=-1"
    assert (
        _words_for_kernels("root=/dev/sda liveupdate=on kho=on", ()) == "root=/dev/sda liveupdate=on kho=on"
    )


def test_kernel_records_become_lines_of_a_console() -> None:
    assert _line(b"6,42,1234567,-;kvm: nested") == b"[    1.234567] kvm: nested\n"
    assert _line(b" SUBSYSTEM=pci") == b""
    assert _line(b"") == b""
