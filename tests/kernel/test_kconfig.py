# SPDX-License-Identifier: GPL-2.0-or-later
"""The reader of Kconfig files: conditions from everywhere, and what an expression is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.kernel import kconfig

KCONFIG = """\
mainmenu "x"
config A
	bool "a" if SHOWN # a comment
	help
		config NOT_AN_OPTION

			indented further
		depends on NOTHING

config HIDDEN
	bool
	default y
if B || C
menu "m"
	depends on D && \\
		E
	visible if F
config G
	tristate "g"
	depends on H || (I && !J)
	depends on K if L
	select HIDDEN if A
endmenu
endif
choice
	prompt "one of these"
config ONE
	bool "one"
config TWO
	bool "two"
endchoice
source "arch/$(SRCARCH)/Kconfig"
"""


@pytest.fixture
def tree(tmp_path: Path) -> kconfig.Tree:
    (tmp_path / "Kconfig").write_text(KCONFIG)
    (tmp_path / "arch/x86").mkdir(parents=True)
    (tmp_path / "arch/x86/Kconfig").write_text("config X86\n\tdef_bool y\n")
    return kconfig.Tree(tmp_path)


def test_every_option_is_found(tree: kconfig.Tree) -> None:
    defined = {name for name, symbol in tree.symbols.items() if symbol.definitions}
    assert defined == {"A", "HIDDEN", "G", "ONE", "TWO", "X86"}


def test_conditions_come_from_the_entry_and_from_all_that_encloses_it(tree: kconfig.Tree) -> None:
    [entry] = tree.symbols["G"].definitions
    assert entry.conditions == ["H || (I && !J)", "!(L) || (K)", "B || C", "D && E"]


def on(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "y")


@pytest.mark.parametrize(
    ("name", "wanted", "config", "reason"),
    [
        ("G", "y", on("B", "D", "E", "I", "J"), "unmet: H || (I && !J) (H=n, I=y, J=y)"),
        ("G", "y", on("C", "D", "H"), "unmet: E (E=n)"),
        ("G", "y", on("C", "D", "E", "H", "L"), "unmet: !(L) || (K) (L=y, K=n)"),
        ("A", "y", on(), "cannot be chosen without SHOWN (SHOWN=n)"),
        ("HIDDEN", "y", on(), "cannot be chosen, only selected by G"),
        ("HIDDEN", "n", on("G", "A", "HIDDEN"), "selected by G"),
        ("A", "n", on("A"), "on by default, and cannot be chosen without SHOWN (SHOWN=n)"),
        ("ONE", "y", on("TWO"), "another member of its choice was taken"),
        ("G", "m", on("B", "D", "E", "H", "G"), "it came out as y"),
        ("GG", "y", on(), "this tree has no such option"),
    ],
)
def test_the_reason_is_told(
    tree: kconfig.Tree, name: str, wanted: str, config: dict[str, str], reason: str
) -> None:
    assert tree.explain(name, wanted, config).startswith(reason)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("Y", 2),
        ("M", 1),
        ("N", 0),
        ("!M", 1),
        ("Y && M", 1),
        ("N || M && Y", 1),
        ("(N || Y) && !N", 2),
        ('STRING = "text"', 2),
        ("M != y", 2),
        ("M=m", 2),
        ("$(success,test -x $(CC)) && Y", 2),
        ("GCC_VERSION >= 90100", 2),
    ],
)
def test_expressions_have_three_values(expression: str, value: int) -> None:
    assert kconfig.level(expression, {"Y": "y", "M": "m", "STRING": '"text"'}) == value
