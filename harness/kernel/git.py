# SPDX-License-Identifier: GPL-2.0-or-later
"""How the kernel stages call git."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import command
from harness.command import Completed
from harness.deadline import Deadline

# A hook or `git bisect run` that starts us sets these for its own repository.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
# What a user's or a machine's configuration must not change: hooks, signing, line ends, ignored files.
ALONE = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
NOBODY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (
        ("NAME", "Live Update Harness"),
        ("EMAIL", "luh@localhost"),
        ("DATE", "2000-01-01T00:00:00Z"),
    )
}


def git(
    *arguments: str | Path,
    deadline: Deadline,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run git without the repository that the environment names, without prompts and optional writes.

    env: added to the environment (see ALONE and NOBODY). check: raise InfraError when git fails.
    """
    unset = [argument for name in FOREIGN for argument in ("-u", name)]
    calm = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    settings = [f"{name}={value}" for name, value in {**calm, **(env or {})}.items()]
    return command.run(["env", *unset, *settings, "git", *arguments], deadline=deadline, cwd=cwd, check=check)
