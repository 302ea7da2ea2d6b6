# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.case import Image, silent
from harness.command import run
from harness.deadline import Deadline
from harness.image import recipe
from harness.image.build import build
from harness.image.recipe import Recipe
from harness.store import Store
from tests.image.unpacked import unpack

RECIPES = Path(harness.__file__).parents[1] / "guest-images"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--kill-child=KILL")


@pytest.fixture(scope="session")
def minimal() -> Recipe:
    return recipe.load("minimal", RECIPES)


@pytest.fixture(scope="session")
def image(minimal: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(minimal, Store(tmp_path_factory.mktemp("store")), silent)


@pytest.fixture(scope="session")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's content, unpacked."""
    return unpack(image, tmp_path_factory.mktemp("unpacked") / "root")


@pytest.fixture(scope="session")
def namespaces() -> tuple[str, ...]:
    """A command prefix that makes its command root and pid 1 of a world of its own."""
    done = run([*NAMESPACES, "true"], deadline=Deadline.after(10, "trying namespaces"), check=False)
    if done.status != 0:
        pytest.skip("this machine gives plain users no namespaces")
    return NAMESPACES
