# SPDX-License-Identifier: GPL-2.0-or-later
"""The search among the patches of a series: commit N of a made-up history stands for the first N patches.

The commits are empty, so that git's bisection, its log and its skips serve here as they are.
"""

from __future__ import annotations

import email.header
import email.policy
import re
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

from harness.bisect.history import Repository
from harness.deadline import Deadline
from harness.kernel.git import ALONE, NOBODY, git

TAG = re.compile(r"^\s*\[[^]]*\]\s*")
INIT_SECONDS = 60.0


def history(directory: Path, found: Sequence[Path]) -> tuple[Repository, list[str]]:
    """A repository at `directory` and its commits: that without a patch first, then one a patch."""
    deadline = Deadline.after(INIT_SECONDS, "git")
    git("init", "--quiet", "--bare", "--template=", directory, deadline=deadline, env=ALONE)
    repository = Repository(directory)
    tree = git("--git-dir", directory, "hash-object", "-t", "tree", "-w", "/dev/null", deadline=deadline)
    commits: list[str] = []
    for author, subject in [("", "the tree without the series"), *map(headline, found)]:
        parent = ("-p", commits[-1]) if commits else ()
        name, _, address = author.partition(" <")
        env = {**NOBODY, **({"GIT_AUTHOR_NAME": name} if name else {})}
        env |= {"GIT_AUTHOR_EMAIL": address.rstrip(">")} if address else {}
        words = ("commit-tree", tree.output.strip(), *parent, "-m", subject)
        commits.append(repository.run(*words, env=env).output.strip())
    return repository, commits


def headline(patch: Path) -> tuple[str, str]:
    """A patch's author and subject, without its tags ("[PATCH 3/9]")."""
    message = message_from_bytes(patch.read_bytes(), policy=email.policy.default)
    subject = " ".join(str(message["Subject"] or patch.name).split())
    return str(message["From"] or ""), TAG.sub("", subject)
