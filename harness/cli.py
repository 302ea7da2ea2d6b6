# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: words -> cases; verdicts -> exit status.

Exit status: 0 all passed, 1 something failed or nothing could run, 2 wrong usage, 3 the harness or the
machine broke, 130 and 143 ended by Ctrl-C and SIGTERM. Imports are made where they are needed, so that
`luh --help` and a misspelt word cost nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from harness.case import (
    Accelerator,
    Case,
    KernelDefinition,
    MachineSpec,
    Outcome,
    Progress,
    Provider,
    Source,
    Update,
)
from harness.errors import HarnessError, KernelError, UsageError
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, USAGE, parse, say
from harness.store import Store

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_RECIPE = "minimal"
STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.SKIP: 1, Outcome.BROKEN: 3}
BROKEN, INTERRUPTED, TERMINATED = 3, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came; it leaves by the same doors as Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv (sys.argv[1:] if None) names, and return the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    options = parse(argv)
    try:
        return COMMANDS[options.command](options)
    except HarnessError as error:
        if options.debug:
            raise
        say(error.message, error.hint, error.detail)
        return _status(error)
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        say(f"a mistake of the harness itself: {type(error).__name__}: {error}", "--debug shows where")
        return BROKEN


def _status(error: HarnessError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return STATUS[Outcome.FAIL] if isinstance(error, KernelError) else BROKEN


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


# ---- luh run and luh build --------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    case = _case(options)
    from harness import attempt
    from harness.report import directory, files, summary, terminal

    shown = terminal.console(sys.stderr if options.json else sys.stdout, color=options.color)
    with _progress(shown) as progress:
        _ensure_tools(options, progress)
        runs = options.runs or directory.default_root()
        verdict = attempt.make(layout=Layout.here(), store=Store.default(), runs=runs, progress=progress)(
            case
        )
    files.write(case, verdict)
    summary.show(shown, verdict)
    if options.json:
        sys.stdout.write(files.result_json(case, verdict))
        sys.stdout.flush()
    return STATUS[verdict.outcome]


def _case(options: argparse.Namespace) -> Case:
    from harness.scenarios import resolve

    kernel = _definition(options)
    return Case(
        kernel=kernel,
        next_kernel=_load(options.next_kernel) if options.next_kernel else kernel,
        recipe=DEFAULT_RECIPE,
        machine=MachineSpec(memory=options.memory, cpus=options.cpus, accelerator=Accelerator(options.accel)),
        scenarios=resolve(options.scenarios, Layout.here().scenarios, everything=options.all),
        seed=options.seed,
    )


def _definition(options: argparse.Namespace) -> KernelDefinition:
    """The kernel that the options describe."""
    defined = _load(options.kernel)
    series = _series(options.series, defined) if options.series else defined.series
    if options.tree is None:
        return replace(defined, series=series)
    tree = options.tree.expanduser().absolute()
    if not (tree / "Kconfig").is_file() or not (tree / "Makefile").is_file():
        raise UsageError(f"{tree} is no kernel tree", hint="name the directory that has Kconfig and Makefile")
    source = Source(Provider.TREE, str(tree))
    return replace(defined, name=tree.name, sources=(source,), series=series if options.series else None)


def _load(name: str) -> KernelDefinition:
    from harness.kernel.definition import load

    layout = Layout.here()
    return load(name, configs=layout.configs, patches=layout.patches)


def _series(word: str, defined: KernelDefinition) -> Path | None:
    if word == "none":
        return None
    if word == "ours":
        return defined.series or _load(DEFAULT_KERNEL).series
    path = Path(word).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(f"there is no series {word!r}", hint="name a folder of patches, ours, or none")
    return path


def _build(options: argparse.Namespace) -> int:
    definition = _definition(options)
    from harness import attempt
    from harness.report import terminal

    with _progress(terminal.console(sys.stderr, color=options.color)) as progress:
        _ensure_tools(options, progress)
        kernel = attempt.build_kernels((definition,), Store.default(), attempt.Timeline(progress))[definition]
    for name, path in (("vmlinux", kernel.vmlinux), ("bzImage", kernel.bzimage), ("config", kernel.config)):
        print(f"{name:8} {path}")
    return 0


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    from harness.report.progress import display

    with display(console) as progress:
        yield progress


def _ensure_tools(options: argparse.Namespace, progress: Progress) -> None:
    from harness import doctor

    doctor.ensure(doctor.TOOLS, allowed=options.install, progress=progress)


# ---- the other commands -----------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from itertools import groupby

    from harness.image import recipe
    from harness.kernel import definition
    from harness.report import terminal
    from harness.report.tables import show
    from harness.scenarios import catalogue

    console, layout = terminal.console(sys.stdout, color=options.color), Layout.here()
    kernels = (_load(name) for name in definition.known(layout.configs))
    show(
        console, "Kernels", [(one.name, f"series {one.series.name}" if one.series else "") for one in kernels]
    )
    for subject, scenarios in groupby(catalogue(layout.scenarios), key=lambda one: one.subject):
        rows = [(one.function, " ".join(one.rules), one.summary) for one in scenarios]
        show(console, f"Scenarios: {subject}", rows)
    show(console, "Images", [(name,) for name in recipe.known(layout.recipes)])
    return 0


def _rules(options: argparse.Namespace) -> int:
    from harness import rules
    from harness.report import directory, terminal
    from harness.report.tables import show
    from harness.scenarios import catalogue
    from harness.scenarios import rules as contract

    layout = Layout.here()
    covered = rules.coverage(
        contract(layout.contract),
        catalogue(layout.scenarios),
        rules.last_outcomes(options.runs or directory.default_root()),
    )
    if options.json:
        print(rules.to_json(covered))
    else:
        show(terminal.console(sys.stdout, color=options.color), "Rules of the contract", rules.rows(covered))
    return 0 if all(rule.scenarios for rule in covered) else STATUS[Outcome.FAIL]


def _doctor(options: argparse.Namespace) -> int:
    import json

    from harness import doctor
    from harness.exchange import encode
    from harness.report import terminal
    from harness.report.tables import show

    report = doctor.check(Store.default().root)
    command = doctor.install_command(report.missing) if report.missing else ""
    if options.json:
        rows = [encode(row) for row in report.rows]
        print(json.dumps({"ok": report.ok, "rows": rows, "install": command}, indent=2))
        return 0 if report.ok else BROKEN
    console = terminal.console(sys.stdout, color=options.color)
    show(console, "This machine", [(row.name, row.state, row.found, row.purpose) for row in report.rows])
    if command:
        print(f"Install what is missing with\n\n  {command}\n")
    return 0 if report.ok else BROKEN


def _bench(options: argparse.Namespace) -> int:
    import json

    from harness import bench
    from harness.exchange import encode
    from harness.report import terminal
    from harness.report.tables import show
    from harness.report.words import duration

    if options.names == [bench.COSTS]:
        return _bench_costs(options)
    names = bench.chosen(tuple(options.names))
    with _progress(terminal.console(sys.stderr, color=options.color)) as progress:
        measured = bench.measure(names, options.count, progress)
    if options.json:
        print(json.dumps(encode(measured), indent=2))
        return 0
    rows = [
        (
            one.title,
            *(duration(value) for value in (one.median, one.least, one.most)),
            f"n={len(one.seconds)}",
        )
        for one in measured.figures
    ]
    heads = ("", "median", "least", "most")
    show(terminal.console(sys.stdout, color=options.color), measured.machine, [heads, *rows])
    return 0


def _bench_costs(options: argparse.Namespace) -> int:
    import json

    from harness import attempt, costs
    from harness.exchange import encode
    from harness.report import costs as report
    from harness.report import directory, terminal

    layout = Layout.here()
    with _progress(terminal.console(sys.stderr, color=options.color)) as progress:
        measured = costs.measure(
            attempt.make(
                layout=layout, store=Store.default(), runs=directory.default_root(), progress=progress
            ),
            _load(options.kernel),
            DEFAULT_RECIPE,
            options.largest,
            options.count,
        )
    if options.json:
        print(json.dumps(encode(measured), indent=2))
    else:
        report.show(terminal.console(sys.stdout, color=options.color), measured)
    return 0


def _test(options: argparse.Namespace) -> int:
    from harness import gate

    def plain(update: Update) -> None:
        print(f"luh: {update.text}", flush=True)

    _ensure_tools(options, plain)
    return gate.test(Layout.here(), tuple(options.pytest), everything=options.all, say=say)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "build": _build,
    "list": _list,
    "rules": _rules,
    "bench": _bench,
    "doctor": _doctor,
    "test": _test,
}


if __name__ == "__main__":
    sys.exit(main())
