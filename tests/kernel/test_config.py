# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fragments ask for comes out, or the run ends with the reason, option by option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Kconfig, SourceTree, Update, silent
from harness.errors import ConfigError, UsageError
from harness.kernel import config, series
from harness.store import Store

Resolve = Callable[..., Kconfig]


@pytest.fixture
def resolve(checkout: Callable[[], SourceTree], store: Store, tmp_path: Path) -> Resolve:
    """Resolves fragments with the given texts, named a, b, c, ..."""

    def run(*texts: str) -> Kconfig:
        paths = tuple(tmp_path / f"{name}.config" for name, _ in zip("abc", texts, strict=False))
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return config.resolve(series.apply(checkout(), (), store, silent), paths, store, silent)

    return run


def test_what_is_asked_for_comes_out(resolve: Resolve) -> None:
    resolved = resolve("# why\nCONFIG_EXPERT=y\n", "CONFIG_VIRTUALIZATION=y\nCONFIG_KVM=y\n")
    assert config.values(resolved.path) == {"EXPERT": "y", "PRINTK": "y", "VIRTUALIZATION": "y", "KVM": "y"}


def test_a_whole_config_takes_the_place_of_tinyconfig_and_is_completed(
    checkout: Callable[[], SourceTree], store: Store, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.write_text("CONFIG_EXPERT=y\nCONFIG_GONE_SINCE=y\nCONFIG_TINY=y\n")
    resolved = config.resolve(series.apply(checkout(), (), store, silent), (), store, silent, base)
    assert config.values(resolved.path) == {"EXPERT": "y", "PRINTK": "y", "TINY": "y"}


def test_an_optional_option_that_the_tree_does_not_know_is_done_without(
    resolve: Resolve, updates: list[Update], checkout: Callable[[], SourceTree], store: Store, tmp_path: Path
) -> None:
    fragment = tmp_path / "old.config"
    fragment.write_text("CONFIG_EXPERT=y\n# Optional: only newer trees have it.\nCONFIG_NEWER=y\n")
    tree = series.apply(checkout(), (), store, silent)
    for _ in range(2):  # also where it was configured before
        config.resolve(tree, (fragment,), store, updates.append)
        assert updates[-1].text == "1 options given; this tree does not know CONFIG_NEWER"


def test_an_optional_option_that_the_tree_knows_has_to_come_out(resolve: Resolve) -> None:
    with pytest.raises(ConfigError, match="CONFIG_KVM"):
        resolve("# Optional: for old trees.\nCONFIG_KVM=y\n")


def test_only_the_option_below_the_word_is_optional(resolve: Resolve) -> None:
    with pytest.raises(ConfigError, match="CONFIG_NEEDED"):
        resolve("# Optional: this one.\nCONFIG_NEWER=y\nCONFIG_NEEDED=y\n")


def test_a_later_fragment_wins(resolve: Resolve) -> None:
    resolved = resolve("CONFIG_EXPERT=y\nCONFIG_PRINTK=y\n", "# CONFIG_PRINTK is not set\n")
    assert config.values(resolved.path) == {"EXPERT": "y"}


def test_the_same_input_is_not_resolved_again(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve("CONFIG_EXPERT=y\n")
    monkeypatch.setattr("harness.kernel.config._make", None)
    assert resolve("CONFIG_EXPERT=y\n") == first


def test_an_edit_of_code_has_nothing_resolved_again(
    resolve: Resolve, linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve("CONFIG_EXPERT=y\n")
    monkeypatch.setattr("harness.kernel.config._make", None)
    (linux / "mm/memfd.c").write_text("int edited;\n")
    assert resolve("CONFIG_EXPERT=y\n").digest == first.digest


@pytest.mark.parametrize("file", ["virt/Kconfig", "tools/probe.sh", "scripts/kconfig/conf.py", "Makefile"])
def test_an_edit_of_what_kconfig_reads_has_it_resolved_again(
    resolve: Resolve, linux: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    (linux / "tools/probe.sh").write_text("#!/bin/sh\n")
    with (linux / "virt/Kconfig").open("a") as kconfig:
        kconfig.write("# $(success,$(srctree)/tools/probe.sh)\n")
    resolve("CONFIG_EXPERT=y\n")
    again: list[object] = []
    monkeypatch.setattr("harness.kernel.config._start", lambda *words: again.append(words))
    with (linux / file).open("a") as edited:
        edited.write("# edited\n")
    resolve("CONFIG_EXPERT=y\n")
    assert again


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            "# why\nCONFIG_KVM=y\n",
            2,
            "CONFIG_KVM=y: unmet: VIRTUALIZATION (VIRTUALIZATION=n), EXPERT (EXPERT=n)",
        ),
        ("CONFIG_MOON=y\n", 1, "CONFIG_MOON=y: this tree has no such option"),
        (
            "CONFIG_EXPERT=y\nCONFIG_TINY=y\nCONFIG_IRQ_BYPASS=n\n# CONFIG_TINI=y\nCONFIG_TINNY=y\n",
            5,
            "it has TINY",
        ),
        (
            "CONFIG_EXPERT=y\nCONFIG_MEMFD_CREATE=n\nCONFIG_KVM=y\n",
            3,
            "unmet: VIRTUALIZATION (VIRTUALIZATION=n)",
        ),
    ],
)
def test_what_does_not_come_out_is_named_with_its_line_and_its_reason(
    resolve: Resolve, text: str, line: int, reason: str
) -> None:
    with pytest.raises(ConfigError, match="not in the final configuration: CONFIG_") as caught:
        resolve(text)
    assert f"a.config:{line}: " in caught.value.detail
    assert reason in caught.value.detail


def test_all_that_is_missing_is_named_at_once(resolve: Resolve) -> None:
    with pytest.raises(ConfigError, match=r"CONFIG_KVM, CONFIG_MOON"):
        resolve("CONFIG_KVM=y\n", "CONFIG_MOON=y\n")


def test_a_line_that_is_no_option_is_refused(resolve: Resolve) -> None:
    with pytest.raises(UsageError, match=r"a\.config:2: 'KVM=y' is no option"):
        resolve("CONFIG_EXPERT=y\nKVM=y\n")


def test_a_space_in_a_fragments_path_does_not_matter(
    checkout: Callable[[], SourceTree], store: Store, tmp_path: Path
) -> None:
    fragment = tmp_path / "my own.config"
    fragment.write_text("CONFIG_EXPERT=y\n")
    resolved = config.resolve(series.apply(checkout(), (), store, silent), (fragment,), store, silent)
    assert "EXPERT" in config.values(resolved.path)
