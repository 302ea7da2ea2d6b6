# SPDX-License-Identifier: GPL-2.0-or-later
"""Series in whatever form they come -> files that git am takes, in their order.

A folder is taken as it is. Of everything else a folder is made in the store, by the content of what it comes
from, so that a series is the same whichever way it was handed over.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness import command
from harness.case import Medium, Progress, Series, Update
from harness.command import find
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import mail
from harness.kernel.git import ALONE, git
from harness.store import Store, digest

GATHER_SECONDS = 300.0
FETCH_SECONDS = 120.0
NEW_SECONDS = 60.0
# git format-patch writes its cover letter there; it has no diff that git am could apply.
COVER_LETTER = "0000-"
# What b4 fetched, beside the patches that were found in it.
THREAD = "thread.mbox"
NAME_LENGTH = 52


def gather(series: Sequence[Series], store: Store, progress: Progress) -> tuple[Path, ...]:
    """The patches of all the series, one after the other.

    Raises UsageError where one has no patches or is incomplete, InfraError where it cannot be fetched.
    """
    return tuple(
        patch
        for one in series
        for patch in sorted(folder(one, store, progress).glob("*.patch"))
        if not patch.name.startswith(COVER_LETTER)
    )


def place(series: Series) -> str:
    """What stays the same while the series is being worked on: where it comes from."""
    if series.medium is Medium.MESSAGE:
        return series.location
    return str(Path(series.location).resolve()) + (f" {series.commits}" if series.commits else "")


def subject(patch: Path) -> str:
    """The title of a patch: its subject without what is in brackets."""
    return mail.title(patch.read_bytes()) or patch.stem


def folder(series: Series, store: Store, progress: Progress) -> Path:
    """The folder that holds the patches of one series, and what was fetched for it."""
    deadline = Deadline.after(GATHER_SECONDS, f"reading {series.name}")
    progress(Update("series", f"reading {series.name}"))
    match series.medium:
        case Medium.FOLDER:
            found = Path(series.location)
        case Medium.MAIL:
            found = _from_mail(Path(series.location), store, deadline)
        case Medium.RANGE:
            found = _from_commits(series, store, deadline)
        case Medium.MESSAGE:
            found = _from_thread(series.location, store, progress)
    if not any(not patch.name.startswith(COVER_LETTER) for patch in found.glob("*.patch")):
        raise UsageError(f"no patches in {series.location}", hint="leave `series` out to build without one")
    return found


def _from_mail(path: Path, store: Store, deadline: Deadline) -> Path:
    messages = mail.read(path)
    key = digest("mail", *messages)
    return store.produce(
        "patches", key, lambda draft: _write(messages, str(path), draft, deadline), deadline=deadline
    )


def _write(messages: Sequence[bytes], origin: str, draft: Path, deadline: Deadline) -> None:
    """A patch file for each message that has one, in the order of the series."""
    for number, message in enumerate(mail.series(messages, origin), 1):
        (draft / "message").write_bytes(message.raw)
        text = _patch(draft, deadline)
        (draft / f"{number:04}-{_file_name(message.title)}.patch").write_text(text, encoding="utf-8")
    for scratch in ("message", "body", "diff"):
        (draft / scratch).unlink(missing_ok=True)


def _patch(draft: Path, deadline: Deadline) -> str:
    """draft/message as git format-patch would have written it: decoded, in UTF-8, without what mail adds."""
    script = "exec git mailinfo --encoding=UTF-8 body diff < message"
    done = command.run(
        ["env", *(f"{name}={value}" for name, value in ALONE.items()), "sh", "-c", script],
        cwd=draft,
        deadline=deadline,
    )
    fields = dict(line.split(": ", 1) for line in done.output.splitlines() if ": " in line)
    body, diff = ((draft / name).read_text(encoding="utf-8", errors="replace") for name in ("body", "diff"))
    head = f"From: {fields.get('Author', '')} <{fields.get('Email', '')}>\nDate: {fields.get('Date', '')}\n"
    zeros = "0" * 40
    return (
        f"From {zeros} Mon Sep 17 00:00:00 2001\n{head}Subject: [PATCH] {fields.get('Subject', '')}\n\n"
        f"{body.rstrip()}\n{'' if diff.startswith('---') else '---'}\n{diff}"
    )


def _file_name(title: str) -> str:
    return re.sub(r"[^\w.]+", "-", title, flags=re.ASCII).strip("-.")[:NAME_LENGTH] or "patch"


def _from_commits(series: Series, store: Store, deadline: Deadline) -> Path:
    repository = Path(series.location)
    trusting = ("-c", "safe.directory=*", "-C", repository)
    listed = git(
        *trusting,
        "rev-list",
        "--reverse",
        "--no-merges",
        series.commits,
        "--",
        deadline=deadline,
        check=False,
    )
    if listed.status != 0:
        raise UsageError(f"{series.commits} is no range of commits in {repository}", detail=listed.tail)
    commits = listed.output.split()
    if not commits:
        raise UsageError(
            f"there are no commits in {series.commits}", hint=f"`git -C {repository} log` shows what there is"
        )

    def make(draft: Path) -> None:
        git(
            *trusting,
            "format-patch",
            "--quiet",
            "--full-index",
            "--no-signature",
            "-o",
            draft,
            series.commits,
            env=ALONE,
            deadline=deadline,
        )

    return store.produce("patches", digest("commits", *commits), make, deadline=deadline)


# ---- threads ----------------------------------------------------------------------------------


def _from_thread(message_id: str, store: Store, progress: Progress) -> Path:
    """The patches of a thread, which is fetched anew each time: a new version may have come.

    Where that fails, the thread is taken as it was fetched last.
    """
    deadline = Deadline.after(FETCH_SECONDS, f"fetching the thread of {message_id}")
    kept = store.workspace("threads", digest("thread", message_id)) / THREAD
    progress(Update("series", f"fetching the thread of {message_id}"))
    try:
        if not _is_new(kept):
            _fetch(message_id, kept, deadline)
    except InfraError as error:
        if not kept.exists():
            raise
        progress(Update("series", f"{error.message}; taking what was fetched before"))
    messages = mail.read(kept)

    def make(draft: Path) -> None:
        _write(messages, message_id, draft, deadline)
        (draft / THREAD).write_bytes(kept.read_bytes())

    return store.produce(
        "patches", digest("thread", hashlib.sha256(kept.read_bytes()).digest()), make, deadline=deadline
    )


def _is_new(kept: Path) -> bool:
    """Whether a thread was fetched just now, by an earlier step of the same run."""
    return kept.exists() and time.time() - kept.stat().st_mtime < NEW_SECONDS


def _fetch(message_id: str, target: Path, deadline: Deadline) -> None:
    """Have b4 write the thread to the file; raises InfraError, and then leaves the file alone."""
    draft = target.with_suffix(".new")
    draft.unlink(missing_ok=True)
    argv = [*_b4(), "mbox", "--mbox-name", draft.name, "--outdir", str(draft.parent), message_id]
    try:
        done = command.run(argv, deadline=deadline, check=False)
    except InfraError as error:
        raise InfraError(f"b4 cannot fetch {message_id}: {error.message}", hint=NO_NETWORK) from error
    if done.status != 0 or not draft.exists():
        raise InfraError(f"b4 cannot fetch {message_id}", hint=NO_NETWORK, detail=done.tail)
    draft.rename(target)


NO_NETWORK = "without a network: save the thread as an mbox elsewhere, and name that file"


def _b4() -> list[str]:
    if find_spec("b4"):
        return [sys.executable, "-m", "b4.command"]
    if program := find("b4"):
        return [program]
    raise InfraError(
        "b4 is not there, which fetches a series by its message id",
        hint="apt-get install b4, or name an mbox with the thread",
    )
