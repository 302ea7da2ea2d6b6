# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire format: JSON text sequences (RFC 7464), which find their way again after a torn frame.

A frame is RS (0x1E), a JSON object, LF. JSON escapes both bytes inside strings, so an RS always begins a
frame: whatever came before it without an LF was torn (the kernel died while writing) and is dropped.

Messages from L0:   {"id": 3, "op": "memory.fill", "arguments": {...}}
Messages from L1:   {"hello": {...}} once per start,
                    {"id": 3, "seconds": 0.1, "result": ...} or
                    {"id": 3, "seconds": 0.1, "error": {"errno", "name", "message", "traceback"}}

Two kinds of value that JSON lacks are objects with a single key: {"handle": 5} stands for an object that
lives in the agent, {"bytes": "00ff"} for bytes in hexadecimal.
"""

from __future__ import annotations

from .jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

PROTOCOL = 1
RECORD_SEPARATOR = 0x1E
LINE_FEED = 0x0A
FRAME_LIMIT = 16 << 20


def encode(message: Message) -> bytes:
    """The frame for a message."""
    return b"\x1e" + dumps(message).encode() + b"\n"


class Decoder:
    """Turns the bytes of a stream, in pieces of any size, into messages.

    dropped counts the bytes that belonged to no whole, well-formed frame.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self.dropped = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that became complete with these bytes."""
        self._pending += data
        if LINE_FEED not in data and len(self._pending) < FRAME_LIMIT:
            return []
        *lines, rest = self._pending.split(b"\n")
        if len(rest) >= FRAME_LIMIT:
            self.dropped += len(rest)
            rest = bytearray()
        self._pending = rest
        return [message for line in lines if (message := self._parse(line)) is not None]

    def _parse(self, line: bytearray) -> Message | None:
        start = line.rfind(RECORD_SEPARATOR)
        text = line[start + 1 :]
        self.dropped += max(start, 0)
        try:
            message = loads(text.decode()) if start >= 0 else None
        except ValueError:
            message = None
        if isinstance(message, dict):
            return message
        self.dropped += len(text) + (start >= 0) + 1
        return None
