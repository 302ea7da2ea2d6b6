# SPDX-License-Identifier: GPL-2.0-or-later
"""Artifacts on disk, found by the digest of their inputs.

An entry is a directory `ROOT/KIND/DIGEST`. It appears whole or not at all (rename(2)), and a lock per
entry (flock(2)) lets a second run wait for the first one's result instead of making it again. It is sealed
with checksums of its files, so that one that a disk or a person has damaged is noticed and made again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError

DIGEST_LENGTH = 20
SEAL = ".seal.json"
# Of a larger file only the size is looked at, each time that its entry is used.
LARGEST_CHECKED = 32 << 20
CHUNK = 1 << 20
LOCK_POLL_SECONDS = 0.1


def digest(*parts: str | bytes | Path) -> str:
    """The digest of the parts in their order; a Path stands for its file's content."""
    state = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        raw = data.encode() if isinstance(data, str) else data
        state.update(len(raw).to_bytes(8, "little"))
        state.update(raw)
    return state.hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, slots=True)
class Store:
    """The directory that all artifacts live in; safe to share between concurrent runs.

    told: called with a line about an entry that was damaged and is gone.
    """

    root: Path
    told: Callable[[str], None] = field(default=lambda text: None, compare=False, repr=False)

    @classmethod
    def default(cls) -> Store:
        """$LUH_STORE, or luh/ in the user's cache directory (XDG base directory specification)."""
        named = os.environ.get("LUH_STORE")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(Path(named).absolute() if named else cache / "luh")

    def find(self, kind: str, key: str) -> Path | None:
        """The entry's directory, or None where it has not been made, or was damaged: then it is removed."""
        entry = self.root / kind / key
        if not entry.is_dir():
            return None
        if problem := _damage(entry):
            self.told(f"{kind} in the store was damaged and is made again: {problem}")
            _remove(entry)
            return None
        return entry

    def produce(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], None],
        *,
        deadline: Deadline,
        waits: Callable[[], None] = lambda: None,
    ) -> Path:
        """The entry's directory, made by `make(directory)` if it is not there yet.

        `make` fills an empty directory that becomes the entry when it returns; when it raises, nothing
        stays. waits: called once where another run is found to be making it. Raises InfraError when the
        disk is full, DeadlineError when another run holds the entry beyond the deadline.
        """
        if entry := self.find(kind, key):
            return entry
        with disk_errors(self.root):
            (self.root / kind).mkdir(parents=True, exist_ok=True)
            with locked(self.root / kind / f".{key}.lock", deadline, waits=waits):
                # What a run that was killed has begun: nobody else makes it while we hold the lock.
                for draft in (self.root / kind).glob(f".{key}.*/"):
                    shutil.rmtree(draft, ignore_errors=True)
                return self.find(kind, key) or self._make(self.root / kind / key, make)

    def workspace(self, kind: str, key: str) -> Path:
        """A directory that persists and may be written to again and again (a build directory)."""
        path = self.root / kind / key
        with disk_errors(self.root):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def _make(entry: Path, make: Callable[[Path], None]) -> Path:
        draft = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
        try:
            draft.chmod(0o755)
            make(draft)
            _seal(draft)
            draft.rename(entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return entry


# ---- seals ------------------------------------------------------------------------------------


def _seal(entry: Path) -> None:
    """Write down what the entry's own files are like; what is in folders below it is not looked at."""
    files = {path.name: _state(path) for path in sorted(entry.iterdir()) if path.is_file()}
    (entry / SEAL).write_text(json.dumps(files) + "\n", encoding="utf-8")


def _damage(entry: Path) -> str:
    """What is wrong with an entry in a few words, or ""."""
    try:
        files: dict[str, list[object]] = json.loads((entry / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""  # made before there were seals
    except ValueError:
        return "its seal cannot be read"
    for name, state in files.items():
        if not (entry / name).is_file():
            return f"{name} is gone"
        if _state(entry / name) != state:
            return f"{name} is not what was written"
    return ""


def _state(path: Path) -> list[object]:
    """Size and checksum of a file."""
    status = path.stat()
    checked = status.st_size <= LARGEST_CHECKED
    return [status.st_size, _content(path, status.st_size, status.st_mtime_ns) if checked else ""]


@cache
def _content(path: Path, size: int, modified: int) -> str:
    """The checksum of a file; looked at once in a process as long as size and time stay the same.

    Against accidents, at twice the speed of a digest: every run reads both kernels and the image.
    """
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return f"{checksum:08x}"


def _remove(entry: Path) -> None:
    """Take an entry out of sight at once, then delete it; another run may be doing the same."""
    gone = entry.with_name(f".{entry.name}.{os.getpid()}.damaged")
    with suppress(FileNotFoundError):
        entry.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def locked(
    path: Path, deadline: Deadline, *, shared: bool = False, waits: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a lock on a file (made if missing) for the length of the block.

    shared: others may hold it at the same time, if they share it too. waits: called once where another run
    holds it. Raises DeadlineError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path, deadline, waits)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, kind: int, path: Path, deadline: Deadline, waits: Callable[[], None]) -> None:
    for tries in itertools.count():
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if tries == 0:
                waits()
            if deadline.expired:
                raise DeadlineError(
                    f"another run holds {path.name.strip('.').removesuffix('.lock')}: {deadline.purpose}"
                ) from None
            time.sleep(LOCK_POLL_SECONDS)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn what a full or read-only disk makes of the block into an InfraError that names the store."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        raise InfraError(
            f"cannot write to the store {root}: {error.strerror}",
            hint="free some space, or name another place with LUH_STORE",
        ) from error
