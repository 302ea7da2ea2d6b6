# SPDX-License-Identifier: GPL-2.0-or-later
"""Which messages of a mailbox are the patches of a series, and in which order. Pure but for `read`.

A mailbox that holds a thread has more than the patches, in any order: a cover letter, replies, earlier
versions, parts that were sent again. The order is that of the subjects: [PATCH v2 3/7].

Most series are folders: what reads mail is imported where there is some.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from email.message import EmailMessage

TAG = re.compile(r"\[([^\]]*)\]\s*")
NUMBER = re.compile(r"\b(\d+)/(\d+)\b")
VERSION = re.compile(r"\bv(\d+)\b", re.IGNORECASE)
REPLY = re.compile(r"\s*(?:re|aw|fwd?)\s*:", re.IGNORECASE)
DIFF = re.compile(r"^(?:diff --git a/.* b/|--- (?:a/|/dev/null))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Message:
    """A message with a patch. number of total, as its subject has it; 0 of 0 where it has no such thing."""

    raw: bytes
    title: str
    version: int
    number: int
    total: int


def read(path: Path) -> tuple[bytes, ...]:
    """All messages of an mbox, a maildir or a file with a single message, as they are, in their order."""
    import mailbox

    if path.is_dir():
        found = [message.as_bytes() for message in mailbox.Maildir(path, create=False)]
        return tuple(sorted(found, key=_sent))
    data = path.read_bytes()
    if not data.startswith(b"From "):
        return (data,)
    box = mailbox.mbox(path, create=False)
    try:
        return tuple(message.as_bytes() for message in box)
    finally:
        box.close()


def series(messages: Iterable[bytes], origin: str) -> tuple[Message, ...]:
    """The patches of the newest version in their order.

    A version of which only some parts are there replaces those of the one before it. Raises UsageError where
    a part is missing, or there are two of it. origin: what to call the mailbox then.
    """
    found = [message for message in map(_parse, dict.fromkeys(messages)) if message]
    numbered = [message for message in found if message.total]
    if not numbered:
        return tuple(found)
    chosen: dict[int, Message] = {}
    total = 0
    for version in sorted({message.version for message in numbered}):
        parts = [message for message in numbered if message.version == version]
        named = _by_number(parts, origin)
        if len(named) == parts[0].total or parts[0].total != total:
            chosen, total = {}, parts[0].total
        chosen |= named
    missing = [str(number) for number in range(1, total + 1) if number not in chosen]
    if missing:
        newest = max(message.version for message in numbered)
        raise UsageError(
            f"{origin} lacks patch {', '.join(missing)} of {total}" + (f" (v{newest})" if newest > 1 else "")
        )
    return tuple(chosen[number] for number in sorted(chosen))


def _by_number(parts: Sequence[Message], origin: str) -> dict[int, Message]:
    named: dict[int, Message] = {}
    for message in parts:
        other = named.setdefault(message.number, message)
        if other.title != message.title or other.total != message.total:
            raise UsageError(
                f"{origin} holds more than one series: {other.title!r} and {message.title!r}",
                hint="name a file that has one of them",
            )
        named[message.number] = message  # one that was sent again
    return named


def _parse(raw: bytes) -> Message | None:
    """What a message is in a series; None for one without a patch."""
    message = _message(raw)
    tags, title = _subject(message)
    if REPLY.match(title) or not DIFF.search(_text(message)):
        return None
    number, version = NUMBER.search(tags), VERSION.search(tags)
    if number and number[1].strip("0") == "":
        return None  # a cover letter that shows what changed since the last version
    return Message(
        raw,
        title,
        int(version[1]) if version else 1,
        int(number[1]) if number else 0,
        int(number[2]) if number else 0,
    )


def title(raw: bytes) -> str:
    """A message's subject without what is in brackets before it."""
    return _subject(_message(raw))[1]


def _message(raw: bytes) -> EmailMessage:
    from email import message_from_bytes, policy

    message: EmailMessage = message_from_bytes(raw, policy=policy.default)
    return message


def _subject(message: EmailMessage) -> tuple[str, str]:
    """What is in brackets, and the rest."""
    tags, title = "", " ".join(str(message["subject"] or "").split())
    while match := TAG.match(title):
        tags, title = f"{tags} {match[1]}", title[match.end() :]
    return tags, title


def _text(message: EmailMessage) -> str:
    """All that a message says in plain text; patches as attachments count."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    payloads = (part.get_payload(decode=True) for part in parts)
    return "\n".join(data.decode(errors="replace") for data in payloads if isinstance(data, bytes))


def _sent(raw: bytes) -> float:
    from email import message_from_bytes
    from email.utils import parsedate_to_datetime

    date = message_from_bytes(raw)["date"]
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
