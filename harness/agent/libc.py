# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that the standard library does not offer, by x86-64's numbers.

arch/x86/entry/syscalls/syscall_64.tbl. An error is an OSError with the kernel's errno, as it came.
"""

from __future__ import annotations

import ctypes
import os

NUMBERS = {
    "mmap": 9,
    "munmap": 11,
    "mincore": 27,
    "madvise": 28,
    "socketpair": 53,
    "mount": 165,
    "reboot": 169,
    "delete_module": 176,
    "mbind": 237,
    "get_mempolicy": 239,
    "fallocate": 285,
    "epoll_create1": 291,
    "finit_module": 313,
    "kexec_file_load": 320,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "cachestat": 451,
}

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel; the lock of the interpreter is released meanwhile. Bytes are passed by address."""
    converted = [ctypes.c_long(_signed(a)) if isinstance(a, int) else a for a in arguments]
    result = int(_syscall(ctypes.c_long(NUMBERS[name]), *converted))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """Memory that the kernel writes an answer to; its bytes are `.raw`."""
    return ctypes.create_string_buffer(content, len(content))
