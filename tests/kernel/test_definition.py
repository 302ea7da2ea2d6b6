# SPDX-License-Identifier: GPL-2.0-or-later
"""A definition is read strictly: every mistake names its file, line and field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import KernelDefinition, Medium, Provider, Series, Source
from harness.errors import UsageError
from harness.kernel import definition

ROOT = Path(__file__).resolve().parents[2]
GOOD = "source: [{debian: linux-source-7.3, suite: trixie-backports}]\nseries: 7.3\nfragments: [base]\n"
SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], KernelDefinition]:
    """Loads the definition with a text, in a directory with the fragment base and the series 7.3."""
    (tmp_path / "base.config").write_text("CONFIG_SMP=y\n")
    (tmp_path / "patches/7.3").mkdir(parents=True)

    def load(text: str) -> KernelDefinition:
        (tmp_path / "mine.yaml").write_text(text)
        return definition.load("mine", configs=tmp_path, patches=tmp_path / "patches")

    return load


def test_every_field_arrives(read: Callable[[str], KernelDefinition], tmp_path: Path) -> None:
    assert read(GOOD) == KernelDefinition(
        name="mine",
        sources=(Source(Provider.DEBIAN, "linux-source-7.3", suite="trixie-backports"),),
        series=(Series(Medium.FOLDER, str(tmp_path / "patches/7.3")),),
        fragments=(tmp_path / "base.config",),
    )


def test_every_provider_has_its_form(read: Callable[[str], KernelDefinition], tmp_path: Path) -> None:
    text = f"""\
source:
  - tree: ./linux
  - git: https://example.org/linux
    ref: v7.3
  - tarball: https://example.org/linux.tar.xz
    sha256: {SHA256.upper()}
fragments: [./base.config]
"""
    assert read(text).sources == (
        Source(Provider.TREE, str(tmp_path / "linux")),
        Source(Provider.GIT, "https://example.org/linux", pin="v7.3"),
        Source(Provider.TARBALL, "https://example.org/linux.tar.xz", pin=SHA256),
    )


def test_a_series_can_be_left_out(read: Callable[[str], KernelDefinition]) -> None:
    assert read(GOOD.replace("series: 7.3\n", "")).series == ()
    assert read(GOOD.replace("7.3\nf", "null\nf")).series == ()


@pytest.mark.parametrize(
    ("text", "line", "field", "problem", "hint"),
    [
        ("", 1, "", "empty", ""),
        ("source: [", 1, "", "not YAML", ""),
        (GOOD + "fragmets: [base]\n", 4, "fragmets", "is no field", "fragments"),
        (GOOD + "series: 7.3\n", 4, "series", "is there twice", ""),
        (GOOD.replace("fragments: [base]", ""), 1, "fragments", "is missing", ""),
        (GOOD.replace("[base]", "base"), 3, "fragments", "must be a list", ""),
        (GOOD.replace("[base]", "[base, bsae]"), 3, "fragments[1]", "no fragment 'bsae'", "base"),
        (GOOD.replace("series: 7.3", "series: 7.4"), 2, "series", "no series '7.4'", "7.3"),
        (GOOD.replace(", suite: trixie-backports", ""), 1, "source[0].suite", "is missing", ""),
        (GOOD.replace("debian:", "debain:"), 1, "source[0].debain", "is no field", "debian"),
        (GOOD.replace("suite: t", "ref: x, suite: t"), 1, "source[0].ref", "does not belong to debian", ""),
        (GOOD.replace("suite: t", "tree: x, suite: t"), 1, "source[0]", "names 2 providers", ""),
        ("source: [{tarball: x, sha256: 12}]\nfragments: [base]\n", 1, "source[0].sha256", "64 hex", ""),
    ],
)
def test_a_mistake_names_file_line_and_field(
    read: Callable[[str], KernelDefinition], text: str, line: int, field: str, problem: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    _, _, rest = caught.value.message.partition(f"mine.yaml:{line}: ")
    assert rest, caught.value.message
    assert field in rest
    assert problem in rest
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_an_unknown_name_brings_the_nearest(tmp_path: Path) -> None:
    configs = ROOT / "kernel-configs"
    with pytest.raises(UsageError, match=r"linux-7\.33") as caught:
        definition.load("linux-7.33", configs=configs, patches=tmp_path)
    assert "linux-7.3" in caught.value.hint


def test_the_definitions_of_the_project_are_sound() -> None:
    configs, patches = ROOT / "kernel-configs", ROOT / "kernel-patches"
    for name in definition.known(configs):
        assert definition.load(name, configs=configs, patches=patches).name == name


def test_lines_of_kernels_are_told_from_other_series(tmp_path: Path) -> None:
    for name in ("7.9", "7.10", "provoke", "other-abi", "6.19"):
        (tmp_path / name).mkdir()
    assert [path.name for path in definition.lines(tmp_path)] == ["7.10", "7.9", "6.19"]
