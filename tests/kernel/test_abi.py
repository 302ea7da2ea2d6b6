# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of what a kernel hands over are read from its headers."""

from __future__ import annotations

from pathlib import Path

from harness.kernel import abi

HEADERS = {
    "kexec_handover.h": '#define KHO_FDT_COMPATIBLE "kho-v4"\n#define KHO_FDT_MEMORY_MAP_PROP_NAME "x-v1"\n',
    "luo.h": '#define LUO_ABI_COMPATIBLE\t"luo-v5"\n'
    "#define LUO_ABI_COMPAT_LEN\tALIGN(sizeof(LUO_ABI_COMPATIBLE), 8)\n"
    '#define LIVEUPDATE_TEST_FLB_COMPATIBLE(i)\t"liveupdate-test-flb-v" #i\n',
    "kvm.h": '#define KVM_VM_LUO_FH_COMPATIBLE\t"kvm-vm-v1"\n'
    '#define KVM_GMEM_LUO_FH_COMPATIBLE\t"kvm-gmem-v12"\n',
}


def test_versions_of_a_tree(tmp_path: Path) -> None:
    folder = tmp_path / abi.FOLDER
    folder.mkdir(parents=True)
    for name, text in HEADERS.items():
        (folder / name).write_text(text)
    assert abi.versions(tmp_path) == (("kho", "v4"), ("kvm-gmem", "v12"), ("kvm-vm", "v1"), ("luo", "v5"))


def test_tree_without_any(tmp_path: Path) -> None:
    assert abi.versions(tmp_path) == ()
