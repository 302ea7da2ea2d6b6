# SPDX-License-Identifier: GPL-2.0-or-later
"""Image recipes: what a file may say, and how a mistake in it is reported."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import harness
from harness.errors import UsageError
from harness.image import recipe

OURS = Path(harness.__file__).parents[1] / "guest-images"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "init.c").touch()
    (tmp_path / "motd").touch()
    (tmp_path / "l2").mkdir()
    return tmp_path


def write(recipes: Path, text: str) -> None:
    (recipes / "own.yaml").write_text(text)


def complaint(recipes: Path) -> str:
    with pytest.raises(UsageError) as caught:
        recipe.load("own", recipes)
    return caught.value.message


def test_the_default_recipe_loads() -> None:
    assert "minimal" in recipe.known(OURS)
    assert recipe.load("minimal", OURS).init.is_file()


def test_paths_are_relative_to_the_recipe(recipes: Path) -> None:
    write(
        recipes,
        "init: init.c\npayloads: l2\nmodules: [json, code]\nwithout: [_hashlib]\nfiles: {/etc/motd: motd}\n",
    )
    assert recipe.load("own", recipes) == recipe.Recipe(
        name="own",
        init=recipes / "init.c",
        payloads=recipes / "l2",
        modules=("json", "code"),
        without=("_hashlib",),
        files=((PurePosixPath("/etc/motd"), recipes / "motd"),),
    )


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load("minimla", OURS)
    assert "minimla" in caught.value.message
    assert "minimal" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        ("init: init.c\npayloads: l2\nmodule: [json]\n", 3, "module"),
        ("init: nothing.c\npayloads: l2\n", 1, "init"),
        ("payloads: l2\n", 1, "init"),
        ("init: init.c\npayloads: [l2]\n", 2, "payloads"),
        ("init: init.c\npayloads: l2\nmodules: json\n", 3, "modules"),
        ("init: init.c\npayloads: l2\nmodules:\n- {a: b}\n", 4, "modules"),
        ("init: init.c\npayloads: l2\nfiles:\n  etc/motd: motd\n", 4, "files"),
        ("init: init.c\npayloads: l2\nfiles:\n  /../motd: motd\n", 4, "files"),
        ("init: init.c\npayloads: l2\nfiles:\n  /motd: none\n", 4, "files"),
        ("init: [\n", 2, "YAML"),
        ("- init\n", 1, "init"),
        ("", 1, "init"),
    ],
)
def test_a_mistake_names_file_line_and_field(recipes: Path, text: str, line: int, field: str) -> None:
    write(recipes, text)
    message = complaint(recipes)
    assert message.startswith(f"{recipes}/own.yaml:{line}: ")
    assert field in message
