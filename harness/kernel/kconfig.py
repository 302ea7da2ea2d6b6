# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a tree's Kconfig files far enough to say why an option is not what was asked for.

It is only called to explain a failure, and makes no decision: the tree's own tools make the .config.
The language is that of Documentation/kbuild/kconfig-language.rst.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(r'\$\((?:[^()]|\([^()]*\))*\)|"[^"]*"|\'[^\']*\'|[\w.-]+|!=|<=|>=|&&|\|\||[<>=!()]')
COMMENT = re.compile(r"""((?:[^#"']|"[^"]*"|'[^']*')*)#.*""")
TYPES = ("bool", "tristate", "string", "hex", "int")
LEVELS = {"n": 0, "m": 1, "y": 2}
SELECTORS_SHOWN = 5


@dataclass(slots=True)
class Definition:
    """One `config` entry. needs: the entry's own and all enclosing conditions, to be met together.

    prompt: the condition of its prompt, "y" where it has none of its own; None: it has no prompt at all.
    """

    needs: list[str] = field(default_factory=list)
    prompt: str | None = None
    enclosing: tuple[list[str], ...] = ()
    in_choice: bool = False

    @property
    def conditions(self) -> list[str]:
        return [*self.needs, *(condition for block in self.enclosing for condition in block)]


@dataclass(slots=True)
class Symbol:
    """An option: all its entries, and which options select it under which condition."""

    definitions: list[Definition] = field(default_factory=list)
    selectors: list[tuple[str, str]] = field(default_factory=list)


class Tree:
    """All options of a kernel tree, by their names without CONFIG_."""

    def __init__(self, root: Path, srcarch: str = "x86") -> None:
        self.symbols: dict[str, Symbol] = {}
        self._root = root
        self._srcarch = srcarch
        self._blocks: list[tuple[str, list[str]]] = []
        self._read("Kconfig")

    def explain(self, name: str, wanted: str, config: Mapping[str, str]) -> str:
        """Why the option is not `wanted` in the configuration (name -> value; what is off is absent)."""
        symbol = self.symbols.get(name)
        if symbol is None:
            close = difflib.get_close_matches(name, self.symbols, n=3)
            return "this tree has no such option" + (f"; it has {', '.join(close)}" if close else "")
        if wanted == "n":
            return self._why_on(symbol, config)
        unmet = min((list(_unmet(each, config)) for each in symbol.definitions), key=len, default=[])
        if unmet:
            return "unmet: " + ", ".join(unmet)
        prompts = [each.prompt for each in symbol.definitions if each.prompt is not None]
        if not any(level(prompt, config) for prompt in prompts):
            if prompts:
                return "cannot be chosen without " + ", ".join(_told(prompt, config) for prompt in prompts)
            names = [selector for selector, _ in symbol.selectors]
            return "cannot be chosen, only selected" + (f" by {_some(names)}" if names else "")
        if any(each.in_choice for each in symbol.definitions):
            return "another member of its choice was taken"
        return f"it came out as {config.get(name, 'n')}: out of its range, or modules are off"

    def _why_on(self, symbol: Symbol, config: Mapping[str, str]) -> str:
        active = [name for name, condition in symbol.selectors if name in config and level(condition, config)]
        if active:
            return f"selected by {_some(active)}"
        hidden = [
            each.prompt for each in symbol.definitions if each.prompt and not level(each.prompt, config)
        ]
        if hidden:
            return "on by default, and cannot be chosen without " + ", ".join(
                _told(it, config) for it in hidden
            )
        return "on by default, and cannot be chosen"

    # ---- parsing ----

    def _read(self, name: str) -> None:
        """Parse one file, and where it says so others."""
        current: list[str] | None = None  # where `depends on` goes
        entry: tuple[str, Definition] | None = None
        for words in _statements(self._root / name):
            keyword, _, rest = words.partition(" ")
            rest = rest.strip()
            if keyword in ("config", "menuconfig"):
                entry = (rest, self._define(rest))
                current = entry[1].needs
            elif keyword in ("menu", "choice", "if"):
                current = [rest] if keyword == "if" else []
                self._blocks.append((keyword, current))
                entry = None
            elif keyword in ("endmenu", "endchoice", "endif"):
                if self._blocks:
                    self._blocks.pop()
                current = entry = None
            elif keyword == "comment":
                current, entry = [], None
            elif keyword == "source":
                self._source(rest)
                current = entry = None
            elif keyword == "depends" and current is not None:
                current.append(_implied(rest.removeprefix("on").strip()))
            elif entry:
                self._attribute(entry, keyword, rest)

    def _define(self, name: str) -> Definition:
        enclosing = tuple(conditions for _, conditions in self._blocks)
        in_choice = any(kind == "choice" for kind, _ in self._blocks)
        definition = Definition(enclosing=enclosing, in_choice=in_choice)
        self.symbols.setdefault(name, Symbol()).definitions.append(definition)
        return definition

    def _source(self, quoted: str) -> None:
        name = quoted.strip("\"'").replace("$(srctree)/", "")
        name = name.replace("$(SRCARCH)", self._srcarch).replace("$(HEADER_ARCH)", self._srcarch)
        if (self._root / name).is_file():
            self._read(name)

    def _attribute(self, entry: tuple[str, Definition], keyword: str, rest: str) -> None:
        name, definition = entry
        what, _, condition = rest.partition(" if ")
        if (keyword in TYPES and rest) or keyword == "prompt":
            definition.prompt = condition.strip() or "y"
        elif keyword == "select":
            self.symbols.setdefault(what.strip(), Symbol()).selectors.append((name, condition.strip() or "y"))


def _statements(path: Path) -> Iterator[str]:
    """The file's lines without comments, help texts and continuations, words one space apart."""
    lines = iter(path.read_text(encoding="utf-8", errors="replace").splitlines())
    line = next(lines, None)
    while line is not None:
        text = line
        while text.endswith("\\"):
            text = text[:-1] + next(lines, "")
        statement = " ".join(COMMENT.sub(r"\1", text).split())
        if statement in ("help", "---help---"):
            line = _after_help(lines)
            continue
        if statement:
            yield statement
        line = next(lines, None)


def _after_help(lines: Iterator[str]) -> str | None:
    """Skip a help text, which ends before the first line that is indented less than its first one."""
    margin = None
    for line in lines:
        if not line.strip():
            continue
        indent = len(line.expandtabs()) - len(line.expandtabs().lstrip())
        margin = indent if margin is None else margin
        if indent < margin or indent == 0:
            return line
    return None


def _implied(condition: str) -> str:
    """`A if B` (since Linux 6.19) asks for A only where B holds."""
    needed, found, when = condition.partition(" if ")
    return f"!({when}) || ({needed})" if found else condition


# ---- expressions ------------------------------------------------------------------------------


def level(expression: str, config: Mapping[str, str]) -> int:
    """The value of an expression: 0, 1 or 2 for n, m and y; what only make could tell counts as y."""
    return _Expression(TOKEN.findall(expression), config).alternatives()


class _Expression:
    """A recursive descent over an expression's tokens."""

    def __init__(self, tokens: list[str], config: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._config = config

    def alternatives(self) -> int:
        value = self._terms()
        while self._take("||"):
            value = max(value, self._terms())
        return value

    def _terms(self) -> int:
        value = self._factor()
        while self._take("&&"):
            value = min(value, self._factor())
        return value

    def _factor(self) -> int:
        if self._take("!"):
            return 2 - self._factor()
        if self._take("("):
            value = self.alternatives()
            self._take(")")
            return value
        left = self._tokens.pop(0) if self._tokens else "y"
        if self._tokens and self._tokens[0] in ("=", "!="):
            equal = self._tokens.pop(0) == "="
            return 2 if (self._text(left) == self._text(self._tokens.pop(0))) is equal else 0
        if self._tokens and self._tokens[0] in ("<", ">", "<=", ">="):
            del self._tokens[:2]  # versions of tools
            return 2
        return 2 if left.startswith("$(") else LEVELS.get(self._text(left), 0)

    def _text(self, token: str) -> str:
        value = token if token in LEVELS or token[0] in "\"'" else self._config.get(token, "n")
        return value.strip("\"'")

    def _take(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            self._tokens.pop(0)
            return True
        return False


def _unmet(definition: Definition, config: Mapping[str, str]) -> Iterator[str]:
    for condition in definition.conditions:
        for term in _conjuncts(condition):
            if level(term, config) == 0:
                yield _told(term, config)


def _conjuncts(condition: str) -> Iterator[str]:
    """The terms of the outermost conjunction; the whole where it is none."""
    depth, terms = 0, [""]
    for token in TOKEN.findall(condition):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token == "||":
            yield condition
            return
        if depth == 0 and token == "&&":
            terms.append("")
        else:
            terms[-1] += token if token in "()!" or terms[-1].endswith(("(", "!")) else f" {token}"
    yield from (term.strip() for term in terms)


def _told(term: str, config: Mapping[str, str]) -> str:
    """A condition with the values of its options: `FOO && !BAR (FOO=n, BAR=y)`."""
    names = [token for token in TOKEN.findall(term) if re.fullmatch(r"[A-Z0-9]\w*", token)]
    values = ", ".join(f"{name}={config.get(name, 'n')}" for name in dict.fromkeys(names))
    return f"{term} ({values})" if values else term


def _some(names: list[str]) -> str:
    unique = sorted(set(names))
    return ", ".join(unique[:SELECTORS_SHOWN]) + (" and others" if len(unique) > SELECTORS_SHOWN else "")
