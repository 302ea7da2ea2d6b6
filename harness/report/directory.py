# SPDX-License-Identifier: GPL-2.0-or-later
"""Where runs keep their traces: one directory a run, named by the time it began."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import InfraError

TIME_FORMAT = "%Y%m%dT%H%M%SZ"
# What a run, and a matrix, has for a browser.
REPORT = "report.html"


def default_root() -> Path:
    """$LUH_RUNS, or luh/runs in the user's state directory (XDG base directory specification)."""
    named = os.environ.get("LUH_RUNS")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(named).absolute() if named else state / "luh" / "runs"


def create(root: Path) -> Path:
    """A new, empty run directory below root. Raises InfraError where that cannot be written."""
    path = root.absolute() / f"{datetime.now(UTC).strftime(TIME_FORMAT)}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise InfraError(
            f"cannot make the run directory {path}: {error.strerror}", hint="name another place with --runs"
        ) from error
    return path


def began(directory: Path) -> datetime:
    """When the run of a directory that `create` made began."""
    return datetime.strptime(directory.name.partition("-")[0], TIME_FORMAT).replace(tzinfo=UTC)


def point_latest(directory: Path) -> None:
    """Make `latest`, beside the directory, point to it; a reader sees the old or the new one, never none."""
    draft = directory.parent / f".latest.{directory.name}"
    draft.symlink_to(directory.name)
    draft.replace(directory.parent / "latest")
