# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own tests (tools/testing/selftests), built from the tree under test, each kept in the store.

Their Makefiles are the tree's own, called as tools/testing/selftests/Makefile calls them, but for the wanted
programs alone and linked statically. They compile some objects beside their sources whatever they are told,
so tools/ is laid out anew in hard links, with the rest of the tree as links around it, and built in there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from harness import command
from harness.case import Kernel, PatchedTree, Program, Progress, Selftest, Update
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel import config, files, toolchain, trees
from harness.kernel.build import COMPILER_ERROR, MACHINE_FAULTS, OTHER_ERROR
from harness.store import Store, digest, disk_errors, locked

KIND = "kselftest"
SELFTESTS = "tools/testing/selftests"
BUILD_SECONDS = 1800.0
# Of tools/testing/selftests/kselftest/runner.sh, for folders without a `settings` file.
DEFAULT_TIMEOUT = 45.0
TIMEOUT = re.compile(r"^timeout=(\d+)$", re.MULTILINE)
COMPILED = re.compile(r".* -o (?:\S*/)?(\S+?)(?:\.o)?(?: |$)")
PROGRAM, FACTS, LOG = "program", "facts.json", "build.log"
TREE, HEADERS, OUTPUT = "tree", "headers", "output"
DETAIL_LINES = 20


def build(
    tree: PatchedTree, tests: Sequence[Selftest], kernel: Kernel, store: Store, progress: Progress
) -> tuple[Program, ...]:
    """The programs of the tests, in their order; built only where the store does not have them.

    What a tree does not have, or cannot compile, is a Program with the problem. Raises InfraError where the
    machine is at fault.
    """
    there = [test for test in tests if has(tree, test)]
    wanted = [test for test in there if not test.script]
    lacking = [test for test in wanted if not store.find(KIND, _key(tree, test))]
    problems = _build(tree, lacking, store, progress) if lacking else {}
    values = config.values(kernel.config)
    programs = tuple(_program(tree, test, there, problems, values, store) for test in tests)
    built, before = len(lacking) - len(problems), len(wanted) - len(lacking)
    said = [f"{built} built" if built else "", f"{before} built before" if before else ""]
    said += [f"{len(problems)} do not compile" if problems else ""]
    progress(Update("selftests", ", ".join(filter(None, said)), done=1.0, finished=True))
    return programs


def place(test: Selftest) -> str:
    """Where a tree that has the test has it."""
    return f"{SELFTESTS}/{test.source}"


def has(tree: PatchedTree, test: Selftest) -> bool:
    return (tree.path / place(test)).is_file()


def _program(
    tree: PatchedTree,
    test: Selftest,
    there: Sequence[Selftest],
    problems: Mapping[str, tuple[str, str]],
    values: Mapping[str, str],
    store: Store,
) -> Program:
    if test not in there:
        return Program(test, problem=f"the tree has no {place(test)}", missing=True)
    if test.script:
        return Program(test, digest=tree.digest)
    if test.name in problems:
        problem, detail = problems[test.name]
        return Program(test, problem=problem, detail=detail)
    key = _key(tree, test)
    entry = store.root / KIND / key
    facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
    unmet = tuple(option for option in facts["options"] if not _given(option, values))
    return Program(test, digest=key, path=entry / PROGRAM, seconds=facts["seconds"], options=unmet)


def _key(tree: PatchedTree, test: Selftest) -> str:
    return digest(tree.digest, toolchain.identity(), test.name)


def _given(option: str, values: Mapping[str, str]) -> bool:
    """Whether a line of a `config` file holds in a configuration; a module there may be built in here."""
    name, _, value = option.removeprefix("CONFIG_").partition("=")
    return values.get(name, "n") in ({"m", "y"} if value == "m" else {value})


# ---- with make ---------------------------------------------------------------------------------


def _build(
    tree: PatchedTree, tests: Sequence[Selftest], store: Store, progress: Progress
) -> dict[str, tuple[str, str]]:
    """Build the tests and publish them; what cannot be built, by name: why, and the compiler's words."""
    deadline = Deadline.after(BUILD_SECONDS, "building the kernel's selftests")
    work = store.workspace(f"{KIND}-build", digest(str(tree.path)))
    problems: dict[str, tuple[str, str]] = {}
    with disk_errors(store.root), locked(work / "lock", deadline), trees.still(tree, deadline):
        progress(Update("selftests", "laying out tools/"))
        _lay(tree.path, work / TREE)
        progress(Update("selftests", "installing the kernel's headers"))
        (work / HEADERS).mkdir(exist_ok=True)
        _run(toolchain.make(tree.path, work / HEADERS, "headers"), work / LOG, deadline, progress)
        ordered = sorted(tests, key=lambda test: test.collection)
        for _, group in groupby(ordered, key=lambda test: test.collection):
            together = list(group)
            _make(together, work, deadline, progress)
            for test in together:
                if (work / OUTPUT / test.name).is_file():
                    _publish(tree, test, work, store, deadline)
                else:
                    problems[test.name] = _problem(_make([test], work, deadline, progress), work / TREE)
    return problems


def _lay(tree: Path, target: Path) -> None:
    """Make target a tree whose tools/ is its own, and all else the tree's."""
    names = files.walk(tree / "tools")
    files.follow({name: f"{tree}/tools/{name}" for name in names}, target / "tools", lambda done: None)
    for entry in tree.iterdir():
        link = target / entry.name
        if entry.name != "tools" and not link.is_symlink():
            link.symlink_to(entry)


def _make(tests: Sequence[Selftest], work: Path, deadline: Deadline, progress: Progress) -> str:
    """Have the Makefile of the tests' folder make them, as far as it can; returns what it said."""
    folder = tests[0].collection
    output = work / OUTPUT / folder
    output.mkdir(parents=True, exist_ok=True)
    targets = [work / OUTPUT / test.name for test in tests]
    for target in targets:
        target.unlink(missing_ok=True)
    argv: list[str | Path] = [
        *(
            "make",
            "-C",
            work / TREE / SELFTESTS / folder,
            "-k",
            f"-j{toolchain.jobs()}",
            "--output-sync=target",
        ),
        *(f"OUTPUT={output}", f"KHDR_INCLUDES=-isystem {work / HEADERS}/usr/include"),
        *("USERLDFLAGS=-static", f"CC={toolchain.compiler()}"),
        *targets,
    ]
    return _run(argv, work / LOG, deadline, progress, check=False)


def _run(
    argv: Sequence[str | Path], log: Path, deadline: Deadline, progress: Progress, *, check: bool = True
) -> str:
    def show(line: str) -> None:
        if match := COMPILED.match(line):
            progress(Update("selftests", match[1]))

    done = command.run(argv, env=toolchain.ENVIRONMENT, deadline=deadline, log=log, on_line=show, check=check)
    return done.output


def _publish(tree: PatchedTree, test: Selftest, work: Path, store: Store, deadline: Deadline) -> None:
    folder = tree.path / SELFTESTS / test.collection
    timeout = TIMEOUT.search(_text(folder / "settings"))
    options = [line for line in _text(folder / "config").splitlines() if line.startswith("CONFIG_")]
    facts = {"seconds": float(timeout[1]) if timeout else DEFAULT_TIMEOUT, "options": options}

    def fill(draft: Path) -> None:
        shutil.copy(work / OUTPUT / test.name, draft / PROGRAM)
        (draft / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    store.produce(KIND, _key(tree, test), fill, deadline=deadline)


def _problem(output: str, place: Path) -> tuple[str, str]:
    """What make's output says of a program that it did not make: in a line, and in the compiler's own."""
    lines = output.replace(f"{place}/", "").splitlines()
    for fault, pattern in MACHINE_FAULTS.items():
        if match := re.search(pattern, "\n".join(lines), re.MULTILINE):
            raise InfraError(
                f"a selftest cannot be built because {fault}: {match[0]}", hint="see `luh doctor`"
            )
    detail = "\n".join(lines[-DETAIL_LINES:])
    for line in lines:
        if "No rule to make target" in line:
            return "the Makefile of its folder does not build it", detail
        if match := COMPILER_ERROR.fullmatch(line):
            return f"it does not compile: {match['file']}:{match['line']}: {match['text']}", detail
    error = next((line for line in lines if OTHER_ERROR.fullmatch(line)), "make says no more")
    return f"it does not link: {error.strip()}", detail


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
