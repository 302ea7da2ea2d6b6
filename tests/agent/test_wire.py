# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames survive any cut of the stream, and a torn or foreign one costs nothing but itself."""

from __future__ import annotations

import pytest

from harness.agent import wire

FIRST: wire.Message = {"id": 1, "op": "memory.fill", "arguments": {"text": "line\nfeed, \x1e and ü"}}
SECOND: wire.Message = {"id": 2, "result": [1.5, None, True, 1 << 63]}


def test_a_frame_is_rs_json_lf() -> None:
    assert wire.encode({"id": 1}) == b'\x1e{"id":1}\n'


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_messages_come_whole_whatever_the_pieces(size: int) -> None:
    stream = wire.encode(FIRST) + wire.encode(SECOND)
    decoder = wire.Decoder()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [message for piece in pieces for message in decoder.feed(piece)] == [FIRST, SECOND]
    assert decoder.dropped == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"[    0.1] kernel message\r\n",
        b"\x00\xff\xfe",
        b'\x1e{"id": 7, "op": "torn',
        b'\x1e{"id": 7, "op": "torn\n',
        b"\x1e\n",
        b"\x1e[1, 2]\n",
        b"\x1e\x1e\x1e",
        b'{"id": 8}\n',
    ],
)
def test_garbage_is_dropped_and_counted(garbage: bytes) -> None:
    decoder = wire.Decoder()
    messages = decoder.feed(wire.encode(FIRST) + garbage + wire.encode(SECOND))
    assert messages == [FIRST, SECOND]
    assert decoder.dropped == len(garbage)


def test_a_frame_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_LIMIT", 1000)
    decoder = wire.Decoder()
    assert decoder.feed(b"\x1e" + b"x" * 2000) == []
    assert decoder.feed(wire.encode(SECOND)) == [SECOND]
