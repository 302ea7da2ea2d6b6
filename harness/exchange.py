# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON for the frozen values that an attempt and its pytest child exchange.

`decode(T, encode(value)) == value` for every value built of dataclasses, enums, paths, tuples, optionals and
JSON's own scalars. Anything else is a mistake of ours and raises TypeError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

from harness.case import ScenarioResult

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
T = TypeVar("T")


def encode(value: object) -> Json:
    """The JSON value that stands for `value`."""
    if isinstance(value, Enum):
        return cast(Json, value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"cannot exchange a {type(value).__name__}")


def decode(kind: type[T], data: Json) -> T:
    """The value of type `kind` that `encode` made `data` of."""
    return cast(T, _decode(kind, data))


def _decode(kind: object, data: Json) -> object:
    if get_origin(kind) is tuple:
        return _decode_tuple(get_args(kind), data)
    if isinstance(kind, UnionType):
        (one,) = (option for option in get_args(kind) if option is not NoneType)
        return None if data is None else _decode(one, data)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(data, dict):
        hints = get_type_hints(kind)
        return kind(**{name: _decode(hints[name], item) for name, item in data.items()})
    if isinstance(kind, type) and issubclass(kind, str | int | float | bool | Enum | Path):
        return cast(Callable[[Json], object], kind)(data)
    raise TypeError(f"cannot exchange a {kind}")


def _decode_tuple(kinds: tuple[object, ...], data: Json) -> tuple[object, ...]:
    if not isinstance(data, list):
        raise TypeError(f"expected a list, not {data!r}")
    if kinds[-1] is Ellipsis:
        return tuple(_decode(kinds[0], item) for item in data)
    return tuple(_decode(kind, item) for kind, item in zip(kinds, data, strict=True))


# ---- what a process of the crew is told, and what it tells while it runs ------------------------


@dataclass(frozen=True, slots=True)
class Orders:
    """Which scenarios to run, and with what.

    bench: the file that has it. folder: the scenarios' own. nodes: what pytest is called with. began: the
    attempt's start on the monotonic clock. eager: whether a machine is to start before a scenario asks.
    """

    bench: Path
    folder: Path
    nodes: tuple[str, ...]
    began: float
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Collected:
    """The scenarios that will be run, by name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uncollected:
    """A file that scenarios were looked for in, and why there are none to be had."""

    file: str
    detail: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a scenario does now; its first one says that it began."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A scenario has failed, and its machine is left as it is: until the next event a prompt has the desk."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about the run as a whole that a person should know, once: a subject, and what about it."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A scenario's end."""

    result: ScenarioResult


Event = Collected | Uncollected | Step | Kept | Remark | Ended
_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Collected, Uncollected, Step, Kept, Remark, Ended)
}


def event_line(event: Event) -> str:
    """A line of JSON, with its newline."""
    return json.dumps({"event": type(event).__name__, "value": encode(event)}) + "\n"


def read_event(line: str) -> Event:
    """The event that `event_line` made the line of."""
    message = json.loads(line)
    return decode(_EVENTS[message["event"]], message["value"])
