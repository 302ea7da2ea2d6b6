# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's modules, which are on a disk of their own where the kernel has any.

The agent loads them before its first word, so before anybody can open /dev/liveupdate: the handlers of what
was preserved have to be there by then (rule S2). `luh.modules=late` on the kernel's command line leaves it to
whoever asks.
"""

from __future__ import annotations

import errno
import os

from .host import kho, mount_disk, text
from .libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOADED = "/proc/modules"
LATE = "luh.modules=late"
# The serials of the disks: of the kernel that was booted, and of the one that every kexec goes to.
FIRST, NEXT = "modules", "next-modules"
DIRECTORY = "/run/modules"
# A module whose hardware is not there: the other vendor's half of KVM.
NO_HARDWARE = (errno.EOPNOTSUPP, errno.ENODEV)
DEPENDS = b"\0depends="


def load_at_start() -> None:
    """Load all modules, unless somebody wants to do it later."""
    if LATE not in text("/proc/cmdline").split():
        load()


def load() -> list[str]:
    """Load all modules that are not there yet, each after those that it needs; returns the names of all.

    OSError where the kernel refuses one, other than for want of its hardware.
    """
    _mount()
    missing = {name[:-3].replace("-", "_"): name for name in os.listdir(DIRECTORY)}
    while missing:
        _load_one(next(iter(missing)), missing)
    return loaded()


def unload(name: str) -> None:
    """Remove a module; OSError where it is in use."""
    syscall("delete_module", name.encode() + b"\0", os.O_NONBLOCK)


def loaded() -> list[str]:
    with open(LOADED) as file:
        return [line.split()[0] for line in file]


def _mount() -> None:
    if not os.path.ismount(DIRECTORY):
        mount_disk(NEXT if kho()["kexec_count"] else FIRST, DIRECTORY)


def _load_one(name: str, missing: dict[str, str]) -> None:
    path = f"{DIRECTORY}/{missing.pop(name)}"
    for needed in _needs(path):
        if needed in missing:
            _load_one(needed, missing)
    module = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall("finit_module", module, b"\0", 0)
    except OSError as error:
        if error.errno not in (errno.EEXIST, *NO_HARDWARE):
            raise
    finally:
        os.close(module)


def _needs(path: str) -> list[str]:
    """The modules that a module says it depends on (scripts/mod/modpost.c)."""
    with open(path, "rb") as file:
        text = file.read().partition(DEPENDS)[2].partition(b"\0")[0]
    return [name.replace("-", "_") for name in text.decode().split(",") if name]


OPERATIONS: dict[str, Callable[..., object]] = {
    "load": load,
    "unload": unload,
    "loaded": loaded,
}
