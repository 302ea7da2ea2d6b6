# SPDX-License-Identifier: GPL-2.0-or-later
"""The Live Update Orchestrator's ioctls (include/uapi/linux/liveupdate.h); errors are the kernel's own."""

from __future__ import annotations

import fcntl
import os
import struct

from .files import File
from .kvm import Vm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TYPE = 0xBA << 8
CREATE_SESSION, RETRIEVE_SESSION = _TYPE | 0x00, _TYPE | 0x01
PRESERVE_FD, RETRIEVE_FD, FINISH, GET_NAME = _TYPE | 0x40, _TYPE | 0x41, _TYPE | 0x42, _TYPE | 0x43

NAME_LENGTH = 64
KINDS: dict[str, Callable[[int], File]] = {"file": File, "vm": Vm}

_device: File | None = None


def open_device() -> None:
    """Open /dev/liveupdate and keep it open; every operation does so when it first needs it.

    It can be open once in the whole system: EBUSY while another process has it.
    """
    global _device
    if _device is None:
        _device = File(os.open("/dev/liveupdate", os.O_RDWR | os.O_CLOEXEC))


def has_device() -> bool:
    return _device is not None


def close_device() -> None:
    global _device
    if _device is not None:
        _device.close()
        _device = None


def device() -> File:
    """Another descriptor of the open device."""
    open_device()
    assert _device is not None
    return File(os.dup(_device.fd))


def create_session(name: str) -> File:
    return _session(CREATE_SESSION, name)


def retrieve_session(name: str) -> File:
    return _session(RETRIEVE_SESSION, name)


def preserve(session: File, file: File, token: int) -> None:
    fcntl.ioctl(session.fd, PRESERVE_FD, struct.pack("=IiQ", 16, file.fd, token))


def retrieve(session: File, token: int, kind: str = "file") -> File:
    """The file behind a token; kind "vm" makes it an object that vCPUs can be created on."""
    argument = bytearray(struct.pack("=IiQ", 16, -1, token))
    fcntl.ioctl(session.fd, RETRIEVE_FD, argument, True)
    return KINDS[kind](struct.unpack_from("=i", argument, 4)[0])


def finish(session: File) -> None:
    fcntl.ioctl(session.fd, FINISH, struct.pack("=II", 8, 0))


def get_name(session: File) -> str:
    argument = bytearray(struct.pack("=II64x", 8 + NAME_LENGTH, 0))
    fcntl.ioctl(session.fd, GET_NAME, argument, True)
    return argument[8:].split(b"\0")[0].decode(errors="replace")


def _session(request: int, name: str) -> File:
    open_device()
    assert _device is not None
    argument = bytearray(struct.pack("=Ii64s", 8 + NAME_LENGTH, -1, name.encode()))
    fcntl.ioctl(_device.fd, request, argument, True)
    return File(struct.unpack_from("=i", argument, 4)[0])


OPERATIONS: dict[str, Callable[..., object]] = {
    "open_device": open_device,
    "close_device": close_device,
    "device": device,
    "create_session": create_session,
    "retrieve_session": retrieve_session,
    "preserve": preserve,
    "retrieve": retrieve,
    "finish": finish,
    "get_name": get_name,
}
