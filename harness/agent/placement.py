# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the pages of a mapped file are and should be (NUMA), and what the kernel is advised about them."""

from __future__ import annotations

import struct

from .files import File
from .libc import buffer, syscall
from .pattern import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# include/uapi/linux/mempolicy.h
POLICIES = {"default": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4}
F_NODE, F_ADDR = 1, 2
MASK_BITS = 64


def bind(memory: File, offset: int, length: int, policy: str, nodes: int = 0) -> None:
    """mbind(2) on a part of the mapping; nodes is a mask. The policy is the file's, not the process's."""
    mask = struct.pack("=Q", nodes)
    syscall(
        "mbind", memory.mapping.address + offset, length, POLICIES[policy], mask, MASK_BITS if nodes else 0, 0
    )


def policy(memory: File, offset: int) -> str:
    """The policy that holds for a page (get_mempolicy(2))."""
    mode = buffer(bytes(4))
    syscall("get_mempolicy", mode, None, 0, memory.mapping.address + offset, F_ADDR)
    number = int.from_bytes(mode.raw, "little") & 0xFF
    return next(name for name, value in POLICIES.items() if value == number)


def nodes(memory: File, offset: int, length: int) -> list[int]:
    """The node of each page of a range; each is touched for that."""
    found = []
    for at in range(offset, offset + length, PAGE):
        node = buffer(bytes(4))
        syscall("get_mempolicy", node, None, 0, memory.mapping.address + at, F_NODE | F_ADDR)
        found.append(int.from_bytes(node.raw, "little"))
    return found


def advise(memory: File, offset: int, length: int, advice: int) -> None:
    """madvise(2) on a part of the mapping."""
    syscall("madvise", memory.mapping.address + offset, length, advice)


OPERATIONS: dict[str, Callable[..., object]] = {
    "bind": bind,
    "policy": policy,
    "nodes": nodes,
    "advise": advise,
}
