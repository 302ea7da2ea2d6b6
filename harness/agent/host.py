# SPDX-License-Identifier: GPL-2.0-or-later
"""The host under test itself: which boot and kernel it is, and how much memory it has left."""

from __future__ import annotations

import os
import sys
import time

from .wire import PROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEBUGFS = "/sys/kernel/debug"
PAGE = 4096
CHUNK = 1 << 16
RELEASE_LENGTH = 65
RECORD = 8192
# include/uapi/linux/mount.h
MS_RDONLY = 1
SECOND_CONSOLE = "/dev/hvc0"
# include/uapi/linux/random.h: the first takes a struct rand_pool_info.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207


def hello() -> dict[str, object]:
    """Who is speaking: the identity of this boot, of its kernel and of the agent."""
    name = os.uname()
    return {
        "protocol": PROTOCOL,
        # Tests stage two boots of one machine with it.
        "boot_id": os.environ.get("LUH_BOOT_ID") or text("/proc/sys/kernel/random/boot_id"),
        "release": name.release,
        "version": name.version,
        "kho": kho(),
        "uptime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "cmdline": text("/proc/cmdline"),
        "pid": os.getpid(),
        "python": sys.version.split()[0],
    }


def prepare() -> None:
    """Get ready for a snapshot: import and copy all that a scenario may ask for, and keep no garbage."""
    import gc

    from .__main__ import import_all
    from .kexec import copy_ahead

    import_all()
    copy_ahead()
    gc.collect()


def resume(token: str, entropy: bytes, realtime: float) -> dict[str, object]:
    """Go on from a snapshot: with a random state and a time of its own; returns the token, and `hello`."""
    if os.getppid() == 1:  # an agent that nobody's init started does not own its machine
        _add_entropy(entropy)
        time.clock_settime(time.CLOCK_REALTIME, realtime)
    return {"token": token, "hello": hello()}


def _add_entropy(entropy: bytes) -> None:
    """Have the kernel mix it in and use it at once (random(4))."""
    import fcntl

    sizes = (8 * len(entropy)).to_bytes(4, "little") + len(entropy).to_bytes(4, "little")
    device = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, RNDADDENTROPY, sizes + entropy)
        fcntl.ioctl(device, RNDRESEEDCRNG)
    finally:
        os.close(device)


def kho() -> dict[str, object]:
    """What kexec handover says: {"enabled", "kexec_count", "previous_release"}.

    The count is 0 after a cold boot and comes from struct kho_kexec_metadata
    (include/linux/kho/abi/kexec_metadata.h) in debugfs; None where debugfs does not show it.
    """
    root = f"{DEBUGFS}/kho"
    if not os.path.isdir(root):
        return {"enabled": False, "kexec_count": None, "previous_release": ""}
    try:
        blob = contents(f"{root}/in/sub_fdts/kexec-metadata")
    except FileNotFoundError:
        cold = not os.path.isdir(f"{root}/in")
        return {"enabled": True, "kexec_count": 0 if cold else None, "previous_release": ""}
    release, count = blob[4 : 4 + RELEASE_LENGTH], blob[4 + RELEASE_LENGTH :]
    return {
        "enabled": True,
        "kexec_count": int.from_bytes(count[:4], "little"),
        "previous_release": release.split(b"\0")[0].decode(),
    }


def mount_debugfs() -> None:
    """For an image whose init did not; the kexec count is to be seen there alone."""
    if not os.path.isdir(f"{DEBUGFS}/kho"):
        from .libc import syscall

        syscall("mount", b"debugfs\0", DEBUGFS.encode() + b"\0", b"debugfs\0", 0, None)


def mount_disk(serial: str, place: str) -> None:
    """Mount the erofs on the disk with that serial, at a directory that is made for it."""
    from .libc import syscall

    os.makedirs(place, exist_ok=True)
    names = (disk(serial).encode() + b"\0", place.encode() + b"\0", b"erofs\0")
    syscall("mount", *names, MS_RDONLY, None)


def memory() -> dict[str, int]:
    """Bytes: free in the buddy allocator, free on the per-CPU lists, evictable file cache, the agent's own.

    Only their sum balances. Freed pages wait on the per-CPU lists (mm/vmstat.c), which neither MemFree nor
    MemAvailable counts, and move from there to the buddy allocator and back at any time: both are taken from
    one reading of a zone, for between two files a MiB can move. The agent itself grows while it imports
    modules. A guest_memfd's pages are unevictable and so in none of them.
    """
    zones = [line.split() for line in text("/proc/zoneinfo").splitlines()]
    info = _sizes("/proc/meminfo")
    return {
        "free": sum(int(fields[2]) * PAGE for fields in zones if fields[:2] == ["pages", "free"]),
        "per_cpu": sum(int(fields[1]) * PAGE for fields in zones if fields[:1] == ["count:"]),
        "file_cache": info["Active(file)"] + info["Inactive(file)"],
        "agent": _sizes("/proc/self/status")["RssAnon"],
    }


def settle() -> None:
    """Give back what only waits to be freed: this process's garbage, clean page cache, free slabs."""
    import gc

    from .memory import release

    gc.collect()
    release()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    if os.path.exists(f"{DEBUGFS}/kmemleak"):
        _empty_quarantine()


def _empty_quarantine() -> None:
    """KASAN keeps what is freed until its cache is shrunk, up to 1/32 of memory (mm/kasan/quarantine.c)."""
    for cache in os.listdir("/sys/kernel/slab"):
        try:
            with open(f"/sys/kernel/slab/{cache}/shrink", "w") as file:
                file.write("1")
        except OSError:
            pass  # the cache is gone, or cannot be shrunk


def kernel_log() -> list[str]:
    """What the kernel has said so far in this boot, without levels and times (/dev/kmsg)."""
    return [text for _, text in _records()]


def _records() -> list[tuple[str, str]]:
    """Each record's prefix ("6,339,5140900,-": level, number, microseconds, flags) and its first line."""
    records, log = [], os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            records.append(os.read(log, RECORD).decode(errors="replace"))
    except BlockingIOError:
        parts = (record.partition(";") for record in records)
        return [(prefix, rest.partition("\n")[0]) for prefix, _, rest in parts]
    finally:
        os.close(log)


def timed_log() -> list[list[object]]:
    """What the kernel has said so far in this boot, each with the seconds of its own clock (/dev/kmsg)."""
    return [[int(prefix.split(",")[2]) / 1e6, text] for prefix, text in _records()]


def started() -> dict[str, float]:
    """When this process began, to a clock tick, and when it ran its first line in this kernel: boot time."""
    from . import ENTERED  # which is another one in an agent that was frozen

    fields = text("/proc/self/stat").rpartition(")")[2].split()
    return {"process": int(fields[19]) / os.sysconf("SC_CLK_TCK"), "python": ENTERED}


def disk(serial: str) -> str:
    """The device of the disk that has this serial; FileNotFoundError where none has."""
    for name in os.listdir("/sys/block"):
        try:
            if text(f"/sys/block/{name}/serial") == serial:
                return f"/dev/{name}"
        except FileNotFoundError:
            continue
    raise FileNotFoundError(2, f"no disk has the serial {serial}")


def resize_terminal(rows: int, columns: int) -> None:
    """Tell the shell on the second console how large the terminal is that shows it (TIOCSWINSZ)."""
    import fcntl
    import struct
    import termios

    terminal = os.open(SECOND_CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    finally:
        os.close(terminal)


def clock() -> dict[str, float]:
    return {
        "monotonic": time.monotonic(),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "realtime": time.time(),
    }


def _sizes(path: str) -> dict[str, int]:
    """The lines `Name:  123 kB` of a file, in bytes."""
    fields = [line.split() for line in text(path).splitlines() if line.endswith(" kB")]
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}


def contents(path: str) -> bytes:
    """A file of the kernel's, whole: by system calls, as Python's io takes an emulated CPU 15 ms at first."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while data := os.read(file, CHUNK):
            found += data
        return found
    finally:
        os.close(file)


def text(path: str) -> str:
    """The same as text, without white space at its ends."""
    return contents(path).decode().strip()


OPERATIONS: dict[str, Callable[..., object]] = {
    "hello": hello,
    "mount_disk": mount_disk,
    "prepare": prepare,
    "resume": resume,
    "memory": memory,
    "settle": settle,
    "kernel_log": kernel_log,
    "timed_log": timed_log,
    "started": started,
    "clock": clock,
    "resize_terminal": resize_terminal,
}
