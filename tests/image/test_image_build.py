# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest image: complete, reproducible, and not built twice. The real compiler and mkfs.erofs make it."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import stat
from pathlib import Path, PurePosixPath

import pytest

from harness.agent import bulk
from harness.agent.pattern import PAGE
from harness.case import Image, Update, silent
from harness.command import run
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.image import interpreter
from harness.image.build import AGENT, AGENT_FOLDER, LIBRARY, START, build
from harness.image.recipe import Recipe
from harness.store import Store
from tests.agent.expected import pages
from tests.image.unpacked import unpack

SECONDS = 60.0


def own_copy(recipe: Recipe, folder: Path) -> Recipe:
    """The same recipe with sources that a test may change."""
    shutil.copytree(recipe.payloads, folder / "l2")
    shutil.copyfile(recipe.init, folder / "init.c")
    return dataclasses.replace(recipe, init=folder / "init.c", payloads=folder / "l2")


@pytest.fixture
def fixed_addresses() -> None:
    done = run(["setarch", "-R", "true"], deadline=Deadline.after(SECONDS, "trying setarch"), check=False)
    if done.status != 0:
        pytest.skip("this machine forbids personality(2)")


@pytest.mark.usefixtures("fixed_addresses")
def test_the_same_inputs_give_the_same_bytes(image: Image, minimal: Recipe, tmp_path: Path) -> None:
    again = build(minimal, Store(tmp_path / "another place"), silent)
    assert again.digest == image.digest
    assert again.path.read_bytes() == image.path.read_bytes()


def test_an_unchanged_image_is_found_without_a_word(image: Image, minimal: Recipe) -> None:
    told: list[Update] = []
    assert build(minimal, Store(image.path.parents[2]), told.append) == image
    assert not told


def test_a_changed_payload_is_another_image(image: Image, minimal: Recipe, tmp_path: Path) -> None:
    changed = own_copy(minimal, tmp_path)
    (tmp_path / "l2/extra.S").write_text(".code16\nhlt\n")
    other = build(changed, Store(tmp_path / "store"), silent)
    assert other.digest != image.digest


def test_a_payload_is_flat_code_from_address_zero(minimal: Recipe, tmp_path: Path) -> None:
    changed = own_copy(minimal, tmp_path)
    (tmp_path / "l2/probe.S").write_text(
        "start: .long value\n.section .note.x\n.long 1\n.data\nvalue: .byte 7\n"
    )
    image = build(changed, Store(tmp_path / "store"), silent)
    flat = (unpack(image, tmp_path / "root") / "luh/l2/probe.bin").read_bytes()
    assert flat[int.from_bytes(flat[:4], "little")] == 7


def test_the_agent_fills_and_checks_many_pages_by_machine_code(root: Path) -> None:
    library = bulk.load(str(root / AGENT_FOLDER.strip("/") / "agent" / LIBRARY))
    assert library
    content = ctypes.create_string_buffer(3 * PAGE)
    arguments = [ctypes.c_uint64(number) for number in (ctypes.addressof(content), 3, 5, 2**64 - 1)]
    library.bulk_fill(*arguments)
    assert content.raw == pages(2**64 - 1, 5, 3)
    content[PAGE] = bytes([content.raw[PAGE] ^ 1])
    assert library.bulk_matching(*arguments) == 1


def test_files_of_the_recipe_are_there(minimal: Recipe, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello\n")
    files = ((PurePosixPath("/etc/motd"), tmp_path / "motd"),)
    image = build(dataclasses.replace(minimal, files=files), Store(tmp_path / "store"), silent)
    assert (unpack(image, tmp_path / "root") / "etc/motd").read_text() == "hello\n"


def test_what_init_mounts_on_is_there(root: Path) -> None:
    assert {"dev", "proc", "run", "sys", "tmp", "init"} <= {path.name for path in root.iterdir()}


def test_every_shared_library_is_in_the_image_at_its_path(root: Path) -> None:
    objects = [root / interpreter.executable().relative_to("/"), *root.rglob("*.so*")]
    needed = interpreter.libraries(objects)
    assert needed
    assert not [path for path in needed if not (root / path.relative_to("/")).is_file()]


def test_modes_do_not_depend_on_the_builder(root: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    assert modes == {0o755, 0o644}


def test_the_agent_runs_in_the_image_and_has_all_that_it_imports(
    root: Path, namespaces: tuple[str, ...]
) -> None:
    modules = sorted(f"agent.{path.stem}" for path in AGENT.glob("*.py"))
    late = sorted(interpreter.imports(AGENT))
    code = START.replace("main(sys.argv[1:])", f"import {', '.join([*modules, *late])}; print('all there')")
    python = interpreter.executable()
    done = run(
        [*namespaces, "chroot", root, python, "-I", "-S", "-B", "-c", code],
        env={"LD_LIBRARY_PATH": str(python.parents[1] / "lib")},
        deadline=Deadline.after(SECONDS, "running the interpreter of the image"),
        check=False,
    )
    assert done.output == "all there"


def test_a_source_that_does_not_compile_is_shown(minimal: Recipe, tmp_path: Path) -> None:
    broken = own_copy(minimal, tmp_path)
    (tmp_path / "init.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(InfraError) as caught:
        build(broken, Store(tmp_path / "store"), silent)
    assert "init.c:1" in caught.value.detail


def test_a_missing_tool_is_named(minimal: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="gcc is not installed"):
        build(minimal, Store(tmp_path / "store"), silent)
