# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of two objects as the build stage leaves it: by gcc and ld, with kbuild's records."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness import command
from harness.case import Kernel
from harness.deadline import Deadline
from harness.kernel import trees
from harness.kernel.lines import Reference
from harness.kernel.toolchain import TREE_LINK

HELPER = """\
static inline __attribute__((always_inline)) void check(int *page)
{
	if (page[1] == 7)
		__asm__ volatile("ud2");
}
"""
GMEM = """\
#include "helper.h"
int gmem_fault(int *page);
int gmem_populate(int *page);
static __attribute__((noinline, noclone)) int same_name(int *page)
{
	page[0] += 1;
	page[2] *= 3;
	page[4] ^= page[5];
	page[6] |= page[7];
	return page[3];
}
__attribute__((noinline)) int gmem_fault(int *page)
{
	page[2] = 1;
	check(page);
	return page[0];
}
__attribute__((noinline)) int gmem_populate(int *page)
{
	int sum = gmem_fault(page);
	sum += same_name(page);
	return sum;
}
"""
OTHER = """\
int other(int *page);
static __attribute__((noinline, noclone)) int same_name(int *page)
{
	return page[9] + 1;
}
int other(int *page)
{
	return same_name(page) + 2;
}
"""
# How lines of GMEM and HELPER are told of.
TRAP = ("include/helper.h:4", "mm/gmem.c:15")
CALL = ("mm/gmem.c:20",)
COMPILE = (
    "gcc -Wp,-MMD,NAME.d -O2 -fno-pic -fcf-protection=none"
    f" -fdebug-prefix-map=OUTPUT=. -fdebug-prefix-map={TREE_LINK}=. -I{TREE_LINK}/include"
)
CONFIG = "CONFIG_KVM=y\n# CONFIG_RANDOMIZE_BASE is not set\n"


def build(folder: Path, *, before: str = "", debug: bool = False) -> Kernel:
    """The kernel, and in `folder` its tree and its build directory. before: put before mm/gmem.c's text."""
    tree, output, entry = folder / "tree" / trees.TREE, folder / "output", folder / "entry"
    for path in (tree / "mm", tree / "include", output / "mm", entry):
        path.mkdir(parents=True)
    (tree / "include/helper.h").write_text(HELPER)
    (tree / "mm/gmem.c").write_text(before + GMEM)
    (tree / "mm/other.c").write_text(OTHER)
    trees.write_record(tree.parent, trees.Record("digest", "7.3.4", "a test"))
    (output / TREE_LINK).symlink_to(tree)
    for name in ("gmem", "other"):
        compile_ = COMPILE.replace("NAME", name).replace("OUTPUT", str(output))
        line = f"{compile_}{' -g' * debug} -c -o mm/{name}.o {TREE_LINK}/mm/{name}.c"
        (output / f"mm/.{name}.o.cmd").write_text(f"savedcmd_mm/{name}.o := {line} ; echo done\n")
        sh(line, output)
    sh("ar cDPrT vmlinux.a mm/gmem.o mm/other.o", output)
    sh(f"ld -e 0 -Ttext=0x1000000 -o {entry}/vmlinux mm/gmem.o mm/other.o", output)
    sh("nm vmlinux > System.map", entry)
    (output / ".config").write_text(CONFIG)
    (entry / "config").write_text(CONFIG)
    meta = {"path": str(tree), "tree": "digest", "version": "7.3.4", "output": str(output)}
    (entry / "meta.json").write_text(json.dumps(meta))
    return Kernel(
        folder.name, folder.name, "7.3.4", entry / "vmlinux", entry / "bzImage", entry / "config", ()
    )


def place(kernel: Kernel, function: str, instruction: str) -> Reference:
    """Where an instruction is in a function, as a trace has it."""
    return _reference(kernel, function, instruction, behind=0)


def after(kernel: Kernel, function: str, instruction: str) -> Reference:
    """Where the instruction behind that one is: what a call returns to."""
    return _reference(kernel, function, instruction, behind=1)


def address(kernel: Kernel, function: str) -> int:
    return int(_symbol(kernel, function)[1], 16)


def _reference(kernel: Kernel, function: str, instruction: str, behind: int) -> Reference:
    words = f"objdump -d --no-show-raw-insn --disassemble={function} vmlinux"
    code = re.findall(r"^\s+([0-9a-f]+):\t(.*)$", sh(words, kernel.vmlinux.parent), re.MULTILINE)
    index = next(index for index, (_, text) in enumerate(code) if instruction in text)
    offset = int(code[index + behind][0], 16) - int(code[0][0], 16)
    return Reference(function, offset, int(_symbol(kernel, function)[2], 16))


def _symbol(kernel: Kernel, function: str) -> re.Match[str]:
    found = re.search(rf"^(\S+) (\S+) \w {function}$", sh("nm -S vmlinux", kernel.vmlinux.parent), re.M)
    assert found
    return found


def sh(script: str, directory: Path) -> str:
    deadline = Deadline.after(30, "a script of a test")
    return command.run(["sh", "-ec", script], cwd=directory, deadline=deadline).output
