# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh repro`: run a recorded case again, or pack it for somebody else."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import output
from harness.errors import UsageError
from harness.layout import Layout
from harness.options import Parser
from harness.store import Store


def add(parser: Parser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="a run's directory or name, latest, or a tarball")
    parser.add_argument("--failed", action="store_true", help="only the scenarios that failed")
    parser.add_argument("--anyway", action="store_true", help="with another kernel, if it cannot be the same")
    parser.add_argument(
        "--trust", action="store_true", help="run the scenarios that a tarball brings: they are programs"
    )
    parser.add_argument("--pack", action="store_true", help="make a tarball, and print a summary for a mail")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the tarball goes")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are")
    parser.add_argument("--json", action="store_true", help="print result.json; progress goes to stderr")
    output.add_install(parser)
    output.add_color(parser)


def run(options: argparse.Namespace) -> int:
    from harness import record, repro
    from harness.report import directory

    runs = options.runs or directory.default_root()
    found = repro.find(options.run_name, runs)
    if options.pack:
        return _pack(options, found)
    layout = Layout.here()
    if found.is_file():
        found = repro.unpack(found, runs / "unpacked")
        foreign = record.own_scenarios(found, layout)
        if foreign and not options.trust:
            raise UsageError(
                f"the tarball brings scenarios of its own: {', '.join(path.name for path in foreign)}",
                hint=f"read {foreign[0]}, and add --trust to run it: it is a program",
            )
    return _again(options, found, runs)


def _again(options: argparse.Namespace, found: Path, runs: Path) -> int:
    from harness import attempt, record, repro, upstream
    from harness.report.document import document
    from harness.report.tables import show

    layout, then = Layout.here(), record.result(found)
    case = record.read(found, layout, anyway=options.anyway)
    if options.failed:
        case = repro.only_failed(then, case)
    trials = upstream.Upstream(case.selftests) if case.selftests else None
    shown = output.stderr(options) if options.json else output.stdout(options)
    with output.progress(shown) as progress:
        output.ensure_tools(options, progress)
        made = attempt.make(layout=layout, store=Store.default(), runs=runs, progress=progress, trials=trials)
        verdict = made(case)
    status = output.conclude(options, shown, case, verdict)
    rows = repro.compare(then, document(case, verdict))
    show(shown, "Then and now", [("", "then", "now"), *rows] if rows else [])
    return status


def _pack(options: argparse.Namespace, found: Path) -> int:
    from harness import record, repro
    from harness.report import words

    if not (found / record.FOLDER / record.FILE).is_file() or not record.result(found):
        raise UsageError(f"{found} does not record its case", hint="only runs that have ended can be packed")
    target = options.output or Path(f"luh-{found.name}{repro.SUFFIX}")
    size = repro.pack(found, target)
    print(repro.summary(record.result(found)))
    output.stderr(options).print(f"{target}, {words.size(size)}: attach it")
    return 0
