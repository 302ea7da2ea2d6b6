# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.command import run
from harness.deadline import Deadline
from harness.image import recipe
from harness.image.recipe import Recipe

RECIPES = Path(harness.__file__).parents[1] / "guest-images"
NAMESPACES = ("unshare", "--pid", "--mount", "--fork", "--kill-child=KILL")
USER = ("--user", "--map-root-user")  # what root does not need, and cannot have inside a chroot


@pytest.fixture(scope="session")
def minimal() -> Recipe:
    return recipe.load("minimal", RECIPES)


@pytest.fixture(scope="session")
def namespaces() -> tuple[str, ...]:
    """A command prefix that makes its command root and pid 1 of a world of its own."""
    for prefix in ((*NAMESPACES, *USER), NAMESPACES):
        waiting = Deadline.after(10, "trying namespaces")
        if run([*prefix, "true"], deadline=waiting, check=False).status == 0:
            return prefix
    pytest.skip("this machine gives this user no namespaces")
