# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON without the json package, which imports re and enum: 0.1 s of every boot under TCG.

The work is done by CPython's own accelerator for json; where an interpreter has none, or one that wants
to be called in another way, the json package itself is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Options:
    """What the accelerator's scanner looks up: how numbers are made, and no hooks."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _accelerated() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    accelerator: Any = __import__("_json")
    scan = accelerator.make_scanner(_Options)
    quote = accelerator.encode_basestring_ascii
    encode = accelerator.make_encoder({}, _refuse, quote, None, ":", ",", False, False, True)

    def dumps(value: Any) -> str:
        return "".join(encode(value, 0))

    def loads(text: str) -> Any:
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError):
            # Before 3.13 the scanner fails with SystemError: its own exception is in the json package.
            end = -1
        if end != len(text):
            raise ValueError("not one JSON text")
        return value

    # An accelerator of another shape shows itself here.
    if loads(dumps({"a": [1, 0.5, None, "\n"]})) != {"a": [1, 0.5, None, "\n"]}:
        raise ImportError("the accelerator does something else")
    return dumps, loads


def _standard() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import json

    return lambda value: json.dumps(value, separators=(",", ":")), json.loads


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


try:
    dumps, loads = _accelerated()
except (ImportError, AttributeError, TypeError):
    dumps, loads = _standard()
