# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user's words for scenarios mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.layout import Layout
from harness.scenarios import catalogue, resolve, rules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_basic.py").write_text(
        "import pytest\n"
        '@pytest.mark.rules("P1", "K3")\n'
        "@pytest.mark.parametrize('order', ['a', 'b'])\n"
        'def test_memory_survives(host, order):\n    """Bytes come through.\n\n    More."""\n'
        "def helper(): ...\n"
    )
    (tmp_path / "test_kexec.py").write_text("def test_refused(host): ...\n")
    return tmp_path


def test_catalogue_knows_names_summaries_and_rules(folder: Path) -> None:
    first, second = catalogue(folder)
    assert (first.name, first.summary) == ("test_basic.py::test_memory_survives", "Bytes come through.")
    assert first.rules == ("P1", "K3")
    assert second.rules == ()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([], ["test_basic.py"]),
        (["all"], ["test_basic.py", "test_kexec.py"]),
        (["kexec"], ["test_kexec.py"]),
        (["test_kexec.py"], ["test_kexec.py"]),
        (["test_refused"], ["test_kexec.py::test_refused"]),
        (["test_basic.py::test_memory_survives[b]"], ["test_basic.py::test_memory_survives[b]"]),
        (["test_memory_survives[a]"], ["test_basic.py::test_memory_survives[a]"]),
        (["k3"], ["test_basic.py::test_memory_survives"]),
        (["kexec", "kexec"], ["test_kexec.py"]),
    ],
)
def test_words(folder: Path, words: list[str], meant: list[str]) -> None:
    assert resolve(words, folder) == tuple(f"{folder}/{node}" for node in meant)


def test_long_ones_are_left_out_unless_meant(folder: Path) -> None:
    (folder / "test_kexec.py").write_text(
        "def test_refused(host): ...\n"
        '@pytest.mark.lane("long")\n@pytest.mark.rules("K3")\ndef test_ten(host): ...\n'
    )
    (folder / "test_scale.py").write_text('@pytest.mark.lane("long")\ndef test_many(host): ...\n')
    kexec, refused = f"{folder}/test_kexec.py", f"{folder}/test_kexec.py::test_refused"
    assert resolve(["kexec"], folder) == (refused,)
    assert resolve(["all"], folder) == (f"{folder}/test_basic.py", refused)
    assert resolve(["all"], folder, everything=True)[1:] == (kexec, f"{folder}/test_scale.py")
    assert resolve(["k3"], folder) == (f"{folder}/test_basic.py::test_memory_survives",)
    assert resolve(["test_ten"], folder) == (f"{kexec}::test_ten",)
    with pytest.raises(UsageError, match="take long"):
        resolve(["scale"], folder)


def test_own_file_is_taken_from_anywhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "elsewhere" / "mine.py"
    own.parent.mkdir()
    own.write_text("def test_mine(host): ...\n")
    monkeypatch.chdir(own.parent)
    assert resolve(["./mine.py::test_mine"], folder) == (f"{own}::test_mine",)


@pytest.mark.parametrize("word", ["basik", "test_memory_survive", "test_basic.py::test_memory"])
def test_unknown_word_names_the_nearest(folder: Path, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve([word], folder)
    assert word in caught.value.message
    assert "did you mean" in caught.value.hint


def test_file_that_does_not_parse_says_where(folder: Path) -> None:
    (folder / "test_wrong.py").write_text("\ndef test_(:\n")
    with pytest.raises(UsageError, match=r"test_wrong.py:2"):
        resolve(["all"], folder)


def test_rules_come_from_the_contract() -> None:
    known = rules(Layout.here().contract)
    assert {"S1", "P8", "F7", "K5", "R9", "H3"} <= known.keys()
    assert known["K2"] == "kexec without any session is an ordinary kexec."
    assert known["H3"].endswith("against a model.")
    assert "EBADF" in known["P5"]


def test_every_scenario_names_rules_that_exist() -> None:
    layout = Layout.here()
    for scenario in catalogue(layout.scenarios):
        assert set(scenario.rules) <= rules(layout.contract).keys(), scenario.name
        assert scenario.summary or not scenario.rules, f"{scenario.name} says nothing about itself"
