# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run directory keeps of its case is the case, also when all that it came from has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import record
from harness.case import Case, KernelDefinition, MachineSpec, Medium, Provider, Series, Source
from harness.errors import UsageError
from harness.exchange import encode
from harness.layout import Layout

PATCH = "Subject: [PATCH] one\n"


def patches_of(series: tuple[Series, ...]) -> tuple[Path, ...]:
    return tuple(path for one in series for path in sorted(Path(one.location).iterdir()))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "checkout"
    for folder in ("kernel-configs", "kernel-patches/7.3", "selftests"):
        (root / folder).mkdir(parents=True)
    (root / "kernel-configs" / "base.config").write_text("CONFIG_KVM=y\n")
    (root / "kernel-patches" / "7.3" / "0001-one.patch").write_text(PATCH)
    (root / "selftests" / "test_basic.py").write_text("def test_a(host): pass\n")
    return Layout(root)


@pytest.fixture
def case(layout: Layout) -> Case:
    kernel = KernelDefinition(
        "linux-7.3",
        (Source(Provider.DEBIAN, "linux-source-7.3", suite="trixie-backports"),),
        (Series(Medium.FOLDER, str(layout.patches / "7.3")),),
        (layout.configs / "base.config",),
    )
    node = f"{layout.scenarios / 'test_basic.py'}::test_a"
    return Case(kernel, kernel, "minimal", MachineSpec(cpus=3), (node,), seed=7)


@pytest.fixture
def run(tmp_path: Path, case: Case) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    record.write(case, directory, patches_of)
    return directory


def test_files_of_the_checkout_that_are_as_they_were_are_taken(run: Path, case: Case, layout: Layout) -> None:
    assert record.read(run, layout) == case
    assert record.own_scenarios(run, layout) == ()


def test_files_that_have_changed_are_taken_from_the_record(run: Path, case: Case, layout: Layout) -> None:
    (layout.configs / "base.config").write_text("CONFIG_KVM=n\n")
    (layout.patches / "7.3" / "0002-two.patch").write_text(PATCH)
    (layout.scenarios / "test_basic.py").unlink()
    read = record.read(run, layout)
    assert [path.read_text() for path in read.kernel.fragments] == ["CONFIG_KVM=y\n"]
    (series,) = read.kernel.series
    assert [path.name for path in Path(series.location).iterdir()] == ["0001-one.patch"]
    (node,) = read.scenarios
    assert Path(node.removesuffix("::test_a")).read_text() == "def test_a(host): pass\n"
    assert [path.name for path in record.own_scenarios(run, layout)] == ["test_basic.py"]
    assert (read.machine, read.seed, read.kernel.sources) == (case.machine, case.seed, case.kernel.sources)


def test_other_next_kernel_is_kept_beside(tmp_path: Path, case: Case, layout: Layout) -> None:
    (tmp_path / "run").mkdir()
    other = replace(case.kernel, name="other", series=())
    record.write(replace(case, next_kernel=other), tmp_path / "run", patches_of)
    read = record.read(tmp_path / "run", layout)
    assert (read.kernel, read.next_kernel) == (case.kernel, other)


def test_kernels_are_pinned_to_those_that_were_built(run: Path, layout: Layout) -> None:
    made_of = {"version": "7.3.4", "origin": "a package", "tree": "t", "config": "c", "toolchain": "gcc 12"}
    kernel = {"digest": "d1", "config": "kernel.config", "ingredients": made_of}
    (run / "result.json").write_text(json.dumps({"kernel": kernel, "next_kernel": None}))
    read = record.read(run, layout)
    assert read.kernel.pin is not None
    assert (read.kernel.pin.digest, encode(read.kernel.pin.ingredients)) == ("d1", made_of)
    assert read.kernel.pin.strict
    assert read.next_kernel.pin is None
    anyway = record.read(run, layout, anyway=True)
    assert anyway.kernel.pin is not None
    assert not anyway.kernel.pin.strict


def test_directory_without_a_record_is_the_user_s_mistake(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(UsageError, match="does not record its case"):
        record.read(tmp_path, layout)
