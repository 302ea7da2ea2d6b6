# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading the next kernel and going there: kexec_file_load(2) and reboot(2)."""

from __future__ import annotations

import os
import time

from .host import disk, text
from .libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# include/uapi/linux/kexec.h
KEXEC_FILE_UNLOAD, KEXEC_FILE_NO_INITRAMFS = 0x1, 0x4
# include/uapi/linux/reboot.h
MAGIC = (0xFEE1DEAD, 672274793)
COMMANDS = {"kexec": 0x45584543, "restart": 0x01234567, "power_off": 0x4321FEDC, "halt": 0xCDEF0123}

DISK_SERIAL = "next-kernel"
# Set on a real machine, which has a file in the place of that disk, and other files that must not be lost.
KERNEL_VARIABLE = "LUH_NEXT_KERNEL"

# Copies that were made beforehand, by what they are copies of.
_copies: dict[str, int] = {}


def load(command_line: str, path: str = "") -> dict[str, float]:
    """Load a bzImage, from `path`, the file of $LUH_NEXT_KERNEL, or the disk whose serial is "next-kernel".

    Returns the seconds for reading the kernel and for the system call.
    """
    started = time.monotonic()
    source = path or _next_kernel()
    kernel = os.dup(_copies[source]) if source in _copies else _regular_file(source)
    read = time.monotonic()
    text = command_line.encode() + b"\0"
    try:
        syscall("kexec_file_load", kernel, -1, len(text), text, KEXEC_FILE_NO_INITRAMFS)
    finally:
        os.close(kernel)
    return {"read": read - started, "load": time.monotonic() - read}


def copy_ahead() -> None:
    """Copy the next kernel now, if there is one, so that loading it does not have to."""
    try:
        source = _next_kernel()
    except FileNotFoundError:
        return
    _copies[source] = _regular_file(source)


def unload() -> None:
    syscall("kexec_file_load", -1, -1, 0, None, KEXEC_FILE_UNLOAD)


def loaded() -> bool:
    return text("/sys/kernel/kexec_loaded") == "1"


def reboot(command: str = "kexec") -> None:
    """Go. Returns, with the errno, only when the kernel refuses; everything is as before then."""
    if KERNEL_VARIABLE in os.environ:
        os.sync()
    syscall("reboot", *MAGIC, COMMANDS[command], None)


def _next_kernel() -> str:
    return os.environ.get(KERNEL_VARIABLE) or disk(DISK_SERIAL)


def _regular_file(path: str) -> int:
    """A copy in a memfd, open for reading only.

    kernel_read_file() takes only regular files, so not the disk itself, and nothing that is open for writing.
    """
    writable = os.memfd_create("kernel", os.MFD_CLOEXEC)
    # Not sendfile(2): on a disk whose last page is partial it ends in EIO (seen with Linux 7.3.4).
    with open(path, "rb", buffering=0) as source:
        while data := source.read(1 << 20):
            os.write(writable, data)
    readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(writable)
    return readable


OPERATIONS: dict[str, Callable[..., object]] = {
    "load": load,
    "unload": unload,
    "loaded": loaded,
    "reboot": reboot,
}
