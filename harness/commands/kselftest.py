# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh kselftest`: the kernel's own tests, from the tree under test, as guests of the harness."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.case import Case, Progress, Selftest
from harness.commands import kernels, machines, output
from harness.layout import Layout
from harness.options import DEFAULT_RECIPE, Parser
from harness.store import Store

EPILOG = """\
A test of two stages is started with `-s 1`, has to leave a process behind that holds its session, and is
started with `-s 2` by the next kernel. It may be one that only your own series brings:

  luh kselftest --series ~/my-series --two-stage tools/testing/selftests/liveupdate/luo_mine.c
"""


def add(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "tests",
        nargs="*",
        metavar="TEST",
        help="a test (luo_kexec_simple), a folder (liveupdate, kvm, kho), or the path of any other of the"
        " tree (kvm/x86/cpuid_test); default: all of the list",
    )
    parser.add_argument(
        "--two-stage",
        metavar="PATH",
        action="append",
        default=[],
        help="a test that goes on after a kexec, wherever in tools/testing/selftests it is",
    )
    parser.add_argument("--list", action="store_true", help="show the list, and run nothing")
    kernels.add(parser)
    parser.add_argument("--next-kernel", metavar="NAME", help="the kernel to update to (default: the same)")
    machines.add(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    parser.add_argument("--json", action="store_true", help="print result.json; progress goes to stderr")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness.kselftest import tests

    layout = Layout.here()
    known = tests.load(layout.kselftests)
    if options.list:
        return _list(options, known)
    chosen = tests.resolve(options.tests, options.two_stage, known)
    case = _case(options, chosen)
    from harness import attempt, upstream
    from harness.report import directory

    shown = output.stderr(options) if options.json else output.stdout(options)
    with output.progress(shown) as progress:
        _ensure_tools(options, chosen, progress)
        verdict = attempt.make(
            layout=layout,
            store=Store.default(),
            runs=options.runs or directory.default_root(),
            progress=progress,
            trials=upstream.Upstream(chosen),
        )(case)
    return output.conclude(options, shown, case, verdict)


def _case(options: argparse.Namespace, tests: tuple[Selftest, ...]) -> Case:
    kernel = kernels.chosen(options)
    return Case(
        kernel=kernel,
        next_kernel=kernels.load(options.next_kernel) if options.next_kernel else kernel,
        recipe=DEFAULT_RECIPE,
        machine=machines.chosen(options),
        scenarios=(),
        selftests=tests,
    )


def _ensure_tools(options: argparse.Namespace, tests: tuple[Selftest, ...], progress: Progress) -> None:
    from harness import doctor

    needed = [tool for test in tests for tool in doctor.SELFTEST_TOOLS.get(test.collection, ())]
    doctor.ensure((*doctor.TOOLS, *dict.fromkeys(needed)), allowed=options.install, progress=progress)


def _list(options: argparse.Namespace, known: tuple[Selftest, ...]) -> int:
    from harness.report.tables import show

    show(
        output.stdout(options),
        "The kernel's own tests",
        [(one.name, _kind(one), _needs(one)) for one in known],
    )
    return 0


def _kind(test: Selftest) -> str:
    """What is done with a test, in words."""
    if test.log:
        return "in the kernel, over a live update"
    return "over a live update" if test.stages == 2 else ""


def _needs(test: Selftest) -> str:
    return f"CONFIG_{test.option}" if test.option else ""
