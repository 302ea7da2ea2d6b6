# SPDX-License-Identifier: GPL-2.0-or-later
"""Just enough of Kconfig for the fake tree: an option is on where it is asked for and its needs are met.

usage: conf.py KCONFIG OUTPUT [ASKED-FOR]
"""

import re
import sys
from pathlib import Path


def options(path: Path) -> dict[str, tuple[list[str], bool]]:
    """Name -> (needs, default) of every option, in order."""
    found: dict[str, tuple[list[str], bool]] = {}
    blocks: list[str] = []
    name = ""
    for line in path.read_text().replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] == ["source"]:
            found |= options(path.parent / words[1].strip('"'))
        elif line.startswith("if "):
            blocks.append(line[3:])
        elif line.startswith("endif"):
            blocks.pop()
        elif line.startswith("config "):
            name = words[1]
            found[name] = ([*blocks], False)
        elif line.startswith("menu"):
            name = ""
        elif name and line.startswith("\tdepends on "):
            found[name][0].append(line.split(" on ", 1)[1])
        elif name and line == "\tdefault y":
            found[name] = (found[name][0], True)
    return found


def met(need: str, on: dict[str, str]) -> bool:
    need, _, condition = need.partition(" if ")
    if condition and condition not in on:
        return True
    return all((term.strip("! \t") in on) is not term.strip().startswith("!") for term in need.split("&&"))


text = Path(sys.argv[3]).read_text() if sys.argv[3:] else ""
text = re.sub(r"^# CONFIG_(\w+) is not set$", r"CONFIG_\1=n", text, flags=re.M)
asked = dict(re.findall(r"^CONFIG_(\w+)=(\w+)", text, re.M))
on: dict[str, str] = {}
for option, (needs, default) in options(Path(sys.argv[1])).items():
    value = asked.get(option, "y" if default else "n")
    if value != "n" and all(met(need, on) for need in needs):
        on[option] = value
Path(sys.argv[2]).write_text("".join(f"CONFIG_{option}={value}\n" for option, value in on.items()))
