# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files and their mappings: what every object of the agent that has a file descriptor can do."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROT_READ, PROT_WRITE = 1, 2
MAP_SHARED, MAP_ANONYMOUS, MAP_NORESERVE = 0x01, 0x20, 0x4000
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
AF_UNIX, SOCK_STREAM = 1, 1


class Mapping:
    """A shared mapping, of a file or anonymous; unmapped by close() or with its last reference.

    view: the memory itself. A load from it may raise SIGBUS, which ends the agent: only what cannot fault
    (anonymous memory, kvm_run) is read directly; memory.py goes through system calls. The mmap module would
    not do: it keeps a duplicate of the descriptor open.
    """

    def __init__(self, fd: int, length: int) -> None:
        import ctypes

        from .libc import syscall

        kind = MAP_SHARED | MAP_NORESERVE | (MAP_ANONYMOUS if fd < 0 else 0)
        self.length = length
        self.address = syscall("mmap", 0, length, PROT_READ | PROT_WRITE, kind, fd, 0)
        self.view = memoryview((ctypes.c_char * length).from_address(self.address)).cast("B")

    def close(self) -> None:
        from .libc import syscall

        if self.length:
            self.view.release()
            syscall("munmap", self.address, self.length)
            self.length = 0

    def __del__(self) -> None:
        if getattr(self, "address", 0) and not sys.is_finalizing():
            self.close()


class File:
    """A file descriptor that the agent owns. Once closed it is -1, so that every use gives EBADF."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        # KVM opens guest_memfds without O_CLOEXEC; no other process may hold on to what is the agent's.
        os.set_inheritable(fd, False)
        self._mapping: Mapping | None = None

    @property
    def mapping(self) -> Mapping:
        """The mapping of the whole file, made when it is first asked for."""
        if self._mapping is None:
            self._mapping = Mapping(self.fd, os.fstat(self.fd).st_size)
        return self._mapping

    def unmap(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        os.close(fd)


def open_path(path: str, flags: int = os.O_RDWR, mode: int = 0o600) -> File:
    return File(os.open(path, flags | os.O_CLOEXEC, mode))


def memfd_create(size: int, name: str = "luh", flags: int = 0) -> File:
    file = File(os.memfd_create(name, flags | os.MFD_CLOEXEC))
    os.ftruncate(file.fd, size)
    return file


def pipe() -> list[File]:
    return [File(fd) for fd in os.pipe()]


def socketpair() -> list[File]:
    """Two connected stream sockets; without the socket module, which is large."""
    from .libc import buffer, syscall

    pair = buffer(bytes(8))
    syscall("socketpair", AF_UNIX, SOCK_STREAM, 0, pair)
    return [File(int.from_bytes(pair.raw[at : at + 4], "little")) for at in (0, 4)]


def epoll() -> File:
    from .libc import syscall

    return File(syscall("epoll_create1", 0))


def eventfd() -> File:
    return File(os.eventfd(0))


def close(file: File, unmap: bool = True) -> None:
    """Close the descriptor; with unmap=False its mapping stays and can be used on."""
    if unmap:
        file.unmap()
    file.close()


def dup(file: File) -> File:
    return File(os.dup(file.fd))


def number(file: File) -> int:
    """The descriptor itself, for another process that takes it over (process.py)."""
    return file.fd


def unlink(path: str) -> None:
    os.unlink(path)


def mkdir(path: str) -> None:
    os.mkdir(path)


def rmdir(path: str) -> None:
    os.rmdir(path)


def text(path: str) -> str:
    """All of a text file, such as those of /proc."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def put_text(path: str, text: str) -> None:
    """One write(2) of the text to a file that is there, such as those of /sys."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def size(file: File) -> int:
    return os.fstat(file.fd).st_size


def link(file: File) -> str:
    """What the kernel calls the file: "anon_inode:kvm-vm", "/memfd:luh (deleted)"."""
    return os.readlink(f"/proc/self/fd/{file.fd}") if file.fd >= 0 else ""


def truncate(file: File, size: int) -> None:
    os.ftruncate(file.fd, size)


def fallocate(file: File, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with the arguments as they are."""
    from .libc import syscall

    syscall("fallocate", file.fd, mode, offset, length)


def allocate(file: File, offset: int, length: int, step: int = 0, count: int = 1) -> None:
    """Allocate a range, or `count` of them, one every `step` bytes."""
    for number in range(count):
        fallocate(file, FALLOC_FL_KEEP_SIZE, offset + number * step, length)


def punch_hole(file: File, offset: int, length: int) -> None:
    fallocate(file, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length)


def read(file: File, length: int, offset: int | None = None) -> bytes:
    return os.read(file.fd, length) if offset is None else os.pread(file.fd, length, offset)


def write(file: File, data: bytes, offset: int | None = None) -> int:
    return os.write(file.fd, data) if offset is None else os.pwrite(file.fd, data, offset)


def ioctl(file: File, request: int, argument: int | bytes = 0) -> dict[str, object]:
    """Any ioctl; with bytes as its argument they come back as the kernel left them."""
    import fcntl

    if isinstance(argument, int):
        return {"value": fcntl.ioctl(file.fd, request, argument), "argument": b""}
    buffer = bytearray(argument)
    return {"value": fcntl.ioctl(file.fd, request, buffer, True), "argument": bytes(buffer)}


def adopt(fd: int) -> File:
    """Take over a descriptor that a raw ioctl returned."""
    return File(fd)


OPERATIONS: dict[str, Callable[..., object]] = {
    "open": open_path,
    "memfd_create": memfd_create,
    "pipe": pipe,
    "socketpair": socketpair,
    "epoll": epoll,
    "eventfd": eventfd,
    "number": number,
    "unlink": unlink,
    "mkdir": mkdir,
    "rmdir": rmdir,
    "text": text,
    "put_text": put_text,
    "close": close,
    "dup": dup,
    "size": size,
    "link": link,
    "truncate": truncate,
    "fallocate": fallocate,
    "allocate": allocate,
    "punch_hole": punch_hole,
    "read": read,
    "write": write,
    "ioctl": ioctl,
    "adopt": adopt,
}
