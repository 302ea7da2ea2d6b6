# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules are loaded in the order of what they need, and what lacks its hardware is passed over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.agent import modules

# How modpost writes it into a module's .modinfo section.
INFO = {
    "kvm-amd.ko": b"\x7fELF\0license=GPL\0depends=kvm,ccp\0",
    "kvm-intel.ko": b"\x7fELF\0license=GPL\0depends=kvm\0",
    "kvm.ko": b"\x7fELF\0softdep=pre: other\0depends=irqbypass\0name=kvm\0",
    "irqbypass.ko": b"\x7fELF\0depends=\0name=irqbypass\0",
}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a kernel without VMX was given, in this order; its disk is there already."""
    disk, listing = tmp_path / "disk", tmp_path / "list"
    disk.mkdir()
    for name, content in INFO.items():
        (disk / name).write_bytes(content)
    listing.write_text("kvm 1 0 - Live 0x0\n")
    given: list[str] = []

    def syscall(name: str, module: int, *rest: object) -> int:
        file = Path(f"/proc/self/fd/{module}").readlink().name
        if file == "kvm-intel.ko":
            raise OSError(errno.EOPNOTSUPP, "no VMX")
        given.append(file)
        return 0

    monkeypatch.setattr(modules, "DIRECTORY", str(disk))
    monkeypatch.setattr(modules, "LOADED", str(listing))
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    monkeypatch.setattr(modules, "syscall", syscall)
    return given


def test_each_module_comes_after_those_that_it_needs(kernel: list[str]) -> None:
    assert modules.load() == ["kvm"]
    assert sorted(kernel) == ["irqbypass.ko", "kvm-amd.ko", "kvm.ko"]
    assert kernel.index("irqbypass.ko") < kernel.index("kvm.ko") < kernel.index("kvm-amd.ko")
