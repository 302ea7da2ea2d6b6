# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on another machine, kept there by their digest, so that each is copied once."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.ssh.connection import Connection

# The user's cache, or the place for temporary files where that cannot be written.
FIND_ROOT = (
    'd=${XDG_CACHE_HOME:-$HOME/.cache}/luh/remote; mkdir -p "$d" 2>/dev/null && [ -w "$d" ] ||'
    ' { d=/tmp/luh-remote; mkdir -p "$d" && chmod 700 "$d"; }; cd "$d" && pwd'
)


@dataclass(frozen=True, slots=True)
class Depot:
    """A directory on the other machine."""

    connection: Connection
    root: str

    @classmethod
    def find(cls, connection: Connection, deadline: Deadline) -> Depot:
        return cls(connection, connection.run(FIND_ROOT, deadline).strip())

    def put(self, file: Path, deadline: Deadline) -> str:
        """The path there of a file with this content; copied if it is not there, and appears whole."""
        digest = _digest(file)
        path = f"{self.root}/{digest[:20]}/{file.name}"
        quoted, draft = shlex.quote(path), shlex.quote(f"{path}.part")
        there = self.connection.run(f"if [ -f {quoted} ]; then echo yes; fi", deadline)
        if there.strip() != "yes":
            check = f'[ "$(sha256sum < {draft} | cut -c-64)" = {digest} ]'
            self.connection.run(
                f"mkdir -p {shlex.quote(str(Path(path).parent))} && cat > {draft} && {check} &&"
                f" mv {draft} {quoted}",
                deadline,
                stdin=file,
            )
        return path

    def unpack(self, archive: Path, deadline: Deadline) -> str:
        """The directory there with what a tar file holds; unpacked once."""
        packed = self.put(archive, deadline)
        target = f"{packed}.d"
        quoted = shlex.quote(target)
        self.connection.run(
            f"[ -d {quoted} ] || {{ rm -rf {quoted}.part; mkdir {quoted}.part &&"
            f" tar -x -C {quoted}.part -f {shlex.quote(packed)} && mv {quoted}.part {quoted}; }}",
            deadline,
        )
        return target


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
