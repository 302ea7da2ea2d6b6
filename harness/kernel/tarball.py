# SPDX-License-Identifier: GPL-2.0-or-later
"""The TARBALL provider: a kernel tarball by URL or path, whose SHA-256 the definition pins."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness.case import MiB, Progress, Source, SourceTree, Update, waiting
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import trees
from harness.store import Store, digest, locked

FETCH_SECONDS = 3600.0
SILENCE_SECONDS = 30.0
ATTEMPTS = 3
CHUNK = 1 * MiB


def checkout(source: Source, store: Store, progress: Progress) -> SourceTree:
    """The tree that the tarball holds; fetched, verified and unpacked once.

    Raises InfraError where it cannot be fetched or is not what was pinned, UsageError for a wrong path.
    """
    holder = store.produce(
        "source",
        digest("tarball", source.pin),
        lambda draft: _fill(source, store, draft, progress),
        deadline=Deadline.after(FETCH_SECONDS, f"another run's fetch of {source.location}"),
        waits=waiting(progress, "source", f"fetches {source.location}"),
    )
    record = trees.read_record(holder)
    if record is None:
        raise InfraError(f"the store's entry {holder} is damaged", hint=f"remove it: rm -r {holder}")
    return trees.source_tree(holder, record)


def _fill(source: Source, store: Store, draft: Path, progress: Progress) -> None:
    deadline = Deadline.after(FETCH_SECONDS, f"the fetch of {source.location}")
    tree = draft / trees.TREE
    tree.mkdir()
    if path := _local(source.location):
        if not path.is_file():
            raise UsageError(f"no tarball {path}")
        _verify(path, source)
        progress(Update("source", f"unpacking {path.name}"))
        trees.unpack(path, tree, deadline)
    else:
        folder = store.workspace("download", digest(source.location, source.pin))
        with locked(folder / "lock", deadline):
            path = folder / Path(urlsplit(source.location).path).name
            download(source, path, deadline, progress)
            progress(Update("source", f"unpacking {path.name}"))
            trees.unpack(path, tree, deadline)
            path.unlink()
    if not trees.is_kernel(tree):
        raise UsageError(f"{source.location} holds no kernel tree")
    trees.write_record(
        draft, trees.Record(digest("tarball", source.pin), trees.version(tree), source.location)
    )


def _local(location: str) -> Path | None:
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location else Path(location).expanduser()


def download(source: Source, path: Path, deadline: Deadline, progress: Progress) -> None:
    """Fetch source.location into path and verify it, going on where an earlier attempt stopped.

    What an attempt that is cut off has fetched stays in path; what has the wrong SHA-256 does not.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    problem = ""
    for _ in range(ATTEMPTS):
        begun = path.stat().st_size if path.exists() else 0
        try:
            _receive(source, path, begun, deadline, progress)
            _verify(path, source)
            return
        except UsageError as error:
            # A file that was resumed may be two different ones: only a whole one convicts the server.
            path.unlink()
            if not begun:
                raise InfraError(error.message, hint=error.hint) from error
            problem = error.message
        except (OSError, HTTPException) as error:  # the first has URLError below it
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            if isinstance(error, HTTPError) and error.code == 416:
                path.unlink(missing_ok=True)  # what we have is longer than what there is
    raise InfraError(
        f"cannot download {source.location}: {problem}", hint="check the network and the proxy settings"
    )


def _receive(source: Source, path: Path, begun: int, deadline: Deadline, progress: Progress) -> None:
    """One request, from byte `begun` on where the server can do that; raises OSError when it is cut off."""
    from urllib.request import Request, urlopen

    request = Request(source.location, headers={"Accept-Encoding": "identity"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    with urlopen(request, timeout=min(SILENCE_SECONDS, deadline.check())) as reply:
        if reply.status != 206:
            begun = 0
        length = reply.headers.get("Content-Length")
        total = begun + int(length) if length else 0
        done, started = begun, time.monotonic()
        with path.open("ab" if begun else "wb") as target:
            while chunk := reply.read1(CHUNK):
                deadline.check()
                target.write(chunk)
                done += len(chunk)
                progress(_update(path.name, begun, done, total, time.monotonic() - started))
    if total and done < total:
        raise ConnectionError(f"cut off after {done} of {total} bytes")


def _update(name: str, begun: int, done: int, total: int, seconds: float) -> Update:
    text = f"downloading {name}: {done // MiB} MiB" + (f" of {total // MiB}" if total else "")
    if not total or done == begun:
        return Update("source", text)
    return Update("source", text, done=done / total, left=seconds * (total - done) / (done - begun))


def _verify(path: Path, source: Source) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.pin:
        raise UsageError(
            f"{source.location} has the SHA-256 {found}, not {source.pin}",
            hint="correct the sha256 of the definition if the file is the right one",
        )
