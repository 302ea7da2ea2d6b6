# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bisect`: which commit, patch or option breaks a scenario."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.case import Case, KernelDefinition, Provider, Series, Source
from harness.commands import kernels, machines, output
from harness.errors import HarnessError, UsageError
from harness.layout import Layout
from harness.options import DEFAULT_KERNEL, DEFAULT_RECIPE, Parser, positive, say
from harness.store import Store

if TYPE_CHECKING:
    from harness.bisect.docket import Docket
    from harness.bisect.history import Repository, Terms
    from harness.bisect.search import Ends, Finding

# What `git bisect run` makes of an exit status: 0 good, 1 to 127 but 125 bad, 125 skip, above: stop.
GOOD, BAD, SKIPPED, STOP = 0, 1, 125, 128
FOUND, NOT_FOUND = 0, 1
CONFIDENCE = 0.99


def add(parser: Parser) -> None:
    parser.epilog = "docs/bisect.md has examples."
    _add_commits(parser)
    others = parser.add_argument_group("or: the patches of a series, the options of a configuration")
    others.add_argument(
        "--series", action="append", default=[], metavar="SERIES", help=f"search its patches: {kernels.FORMS}"
    )
    others.add_argument("--good-config", type=Path, metavar="FILE", help="a whole .config that works")
    others.add_argument("--bad-config", type=Path, metavar="FILE", help="one that does not")
    how = parser.add_argument_group("how")
    how.add_argument("--scenario", action="append", default=[], metavar="S", help="as for `luh run` (basic)")
    how.add_argument("--kernel", metavar="NAME", default=DEFAULT_KERNEL, help="whose configuration to use")
    how.add_argument(
        "--confidence",
        type=_probability,
        default=CONFIDENCE,
        help="that the answer is right: runs are repeated for it where a scenario wobbles (0.99)",
    )
    how.add_argument("--parallel", action="store_true", help="build the next two commits while one runs")
    how.add_argument("--resume", nargs="?", const="", metavar="NAME", help="go on with a search (the latest)")
    how.add_argument("--dry-run", action="store_true", help="say what would be done, and how long it takes")
    how.add_argument(
        "--run", action="store_true", dest="step", help="be the command of the user's own `git bisect run`"
    )
    how.add_argument("--repeat", type=positive, default=1, help="with --run: so many passes make it good (1)")
    machines.add(parser)
    parser.add_argument("--seed", type=int, default=1, help="of every pattern and random choice (1)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where run directories are made")
    output.add_install(parser)
    output.add_color(parser)


def _add_commits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("commits")
    group.add_argument("--tree", type=Path, metavar="DIR", help="a git tree; it is not touched")
    group.add_argument("--good", metavar="REV", help="where it works (with --series: how many patches; 0)")
    group.add_argument("--bad", metavar="REV", help="where it does not (with --series: all)")
    group.add_argument(
        "--side",
        choices=["from", "to", "both"],
        default="both",
        help="the kernel that goes, that comes, or find out which (both)",
    )
    group.add_argument("--hold", metavar="NAME", help="the kernel on the other side (default: the good end)")
    group.add_argument(
        "--apply",
        action="append",
        default=[],
        metavar="[A..B=]SERIES",
        help="patches for the candidates, or for those of a range; the first that applies is taken (ours)",
    )
    group.add_argument("--skip", action="append", default=[], metavar="REV", help="what cannot be judged")
    group.add_argument("--replay", type=Path, metavar="LOG", help="go on from the log of a `git bisect log`")
    group.add_argument("--term-good", default="good", metavar="WORD", help="for git (good)")
    group.add_argument("--term-bad", default="bad", metavar="WORD", help="for git (bad)")


def run(options: argparse.Namespace) -> int:
    if options.step:
        return _step(options)
    if options.resume is not None:
        return _resume(options)
    words = tuple(sys.argv[1:])
    if options.good_config or options.bad_config:
        return _options(options, words)
    if options.series:
        return _patches(options, words)
    return _commits(options, words)


def for_git(words: list[str], status: int) -> int:
    """The exit status of these words, where git would take that of a mistake for a judgement."""
    is_step = words[:1] == ["bisect"] and "--run" in words
    return STOP if is_step and status not in (GOOD, BAD, SKIPPED) and status < STOP else status


# ---- commits ----------------------------------------------------------------------------------


def _commits(options: argparse.Namespace, words: tuple[str, ...], name: str | None = None) -> int:
    from harness.bisect import history, search

    if options.tree is None:
        raise UsageError("nothing to bisect", hint="name --tree, --series, or --good-config and --bad-config")
    tree = options.tree.expanduser().absolute()
    ends, terms = _ends(options, history.Repository.of(tree))
    case = _case(options)
    if options.dry_run:
        theirs = history.Repository.of(tree)
        extra = 5 if options.side == "both" else 3  # the ends, the two crossings, the revert
        return _dry_run(options, _commit_rows(theirs, ends), ends_apart(theirs, ends), extra)
    with _docket(options, words, name, ends_apart(history.Repository.of(tree), ends)) as docket:
        repository = history.Repository.borrow(tree, docket.state.directory / "repository")
        variants = _Variants(options, case.kernel, repository)
        held = kernels.load(options.hold) if options.hold else None
        with _ahead(options, variants, docket) as foresee:
            searching = search.Search(
                repository=repository,
                bisection=history.Bisection(repository, terms),
                ends=ends,
                kernels=search.Kernels(variants, case, held),
                docket=docket,
                foresee=foresee,
            )
            findings = searching.run(search.Side(options.side))
    return _conclude(options, docket, findings, case)


def ends_apart(repository: Repository, ends: Ends) -> int:
    """How many commits lie between the ends."""
    return len(repository.commits(ends.bad, *(f"^{one}" for one in ends.good)))


def _ends(options: argparse.Namespace, repository: Repository) -> tuple[Ends, Terms]:
    from harness.bisect import history, search

    terms = history.Terms(options.term_good, options.term_bad)
    marks: dict[str, list[str]] = {"good": [], "bad": [], "skip": []}
    if options.replay:
        try:
            terms, marks = history.read_log(options.replay.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read {options.replay}: {error.strerror}") from error
    good = [*([options.good] if options.good else []), *marks["good"]]
    bad = [*([options.bad] if options.bad else []), *marks["bad"]]
    if not good or not bad:
        raise UsageError("a bisection needs --good and --bad", hint="or --replay with a log that has both")
    goods = tuple(repository.commit(one) for one in good)
    bads = [repository.commit(one) for one in bad]
    # The bad commit that all other bad ones descend from is the nearest.
    newest = next(one for one in bads if all(repository.is_ancestor(one, other) for other in bads))
    search.check_ends(repository, goods[0], newest)
    skipped = [sha for one in (*options.skip, *marks["skip"]) for sha in _revisions(repository, one)]
    return search.Ends(newest, goods, tuple(skipped)), terms


def _revisions(repository: Repository, word: str) -> list[str]:
    return repository.commits(word) if ".." in word else [repository.commit(word)]


class _Variants:
    """The definitions of a commit: the configuration's, with each series that may apply to it."""

    def __init__(self, options: argparse.Namespace, base: KernelDefinition, repository: Repository) -> None:
        self._base = base
        self._repository = repository
        self._places: dict[str, str] = {}
        self._series = [self._variant(word, options.tree) for word in options.apply or _ours()]

    def use(self, places: dict[str, str]) -> None:
        """Commits that were built in another place than the candidate's."""
        self._places = places

    def __call__(self, commit: str, place: str) -> tuple[KernelDefinition, ...]:
        place = self._places.get(commit, place) if place == "candidate" else place
        source = Source(Provider.GIT, str(self._repository.path), pin=commit, place=place)
        found = [series for within, series in self._series if within is None or commit in within]
        return tuple(replace(self._base, name="bisected", sources=(source,), series=one) for one in found)

    def _variant(self, word: str, tree: Path) -> tuple[frozenset[str] | None, tuple[Series, ...]]:
        span, equals, series = word.rpartition("=")
        within = frozenset(self._repository.commits(span)) if equals else None
        return within, kernels.series_of(series, self._base, None)


def _ours() -> list[str]:
    """Our series for each line of kernels, the newest first; none where a tree has it already."""
    from harness.kernel import definition

    return [*map(str, definition.lines(Layout.here().patches)), "none"]


@contextmanager
def _ahead(
    options: argparse.Namespace, variants: _Variants, docket: Docket
) -> Iterator[Callable[[str, list[str]], None]]:
    from harness.bisect.ahead import Ahead

    if not options.parallel:
        yield lambda commit, following: None
        return
    with Ahead(variants, docket.state.directory) as ahead:

        def foresee(current: str, commits: list[str]) -> None:
            ahead.foresee(current, commits)
            variants.use(ahead.places)

        yield foresee


def _dry_run(options: argparse.Namespace, rows: list[tuple[str, str]], candidates: int, extra: int) -> int:
    """Say how many steps git or ddmin takes for so many candidates. extra: rulings besides, ends and
    others.
    """
    from math import ceil, log2

    from harness.bisect import state
    from harness.report.tables import show
    from harness.report.words import duration

    steps = ceil(log2(max(2, candidates)))
    usual = state.usual_seconds(state.default_root())
    time = "unknown: nothing was bisected here before"
    if usual:
        time = f"about {duration((steps + extra) * usual)}: a candidate took {duration(usual)} so far"
    rows = [*rows, ("Steps", f"about {steps}, and {extra} for the ends and what follows"), ("Time", time)]
    show(output.stdout(options), "Plan", rows)
    return FOUND


def _commit_rows(repository: Repository, ends: Ends) -> list[tuple[str, str]]:
    return [
        ("Good", repository.describe(ends.good[0]).line),
        ("Bad", repository.describe(ends.bad).line),
        ("Commits", f"{ends_apart(repository, ends)} between them, {len(ends.skipped)} skipped"),
    ]


# ---- patches and options ----------------------------------------------------------------------


def _patches(options: argparse.Namespace, words: tuple[str, ...], name: str | None = None) -> int:
    from harness.bisect import history, search
    from harness.bisect.patches import history as made_up
    from harness.kernel.patches import gather

    definition = kernels.chosen(options)
    found = gather(definition.series, Store.default(), lambda update: None)
    good, bad = _number(options.good, 0, len(found)), _number(options.bad, len(found), len(found))
    if good >= bad:
        raise UsageError(f"the good end, {good} patches, has to come before the bad one, {bad}")
    if options.dry_run:
        return _dry_run(options, [("Patches", f"{bad - good} between {good} and {bad}")], bad - good, 2)
    with _docket(options, words, name, bad - good) as docket:
        repository, commits = made_up(docket.state.directory / "repository", found)
        numbers = {sha: number for number, sha in enumerate(commits)}

        def variants(commit: str, place: str) -> tuple[KernelDefinition, ...]:
            number = numbers.get(commit)
            if number is None:
                raise UsageError("a patch of a series is not reverted")
            return (replace(definition, upto=number),)

        searching = search.Search(
            repository=repository,
            bisection=history.Bisection(repository, history.Terms()),
            ends=search.Ends(commits[bad], (commits[good],)),
            kernels=search.Kernels(variants, _case(options, definition)),
            docket=docket,
            reverts=False,
        )
        finding = searching.patches()
    return _conclude(options, docket, [finding], searching.kernels.case)


def _number(word: str | None, default: int, most: int) -> int:
    if word is None:
        return default
    if not word.isdecimal() or int(word) > most:
        raise UsageError(f"{word!r} is no number of patches: the series has {most}")
    return int(word)


def _options(options: argparse.Namespace, words: tuple[str, ...], name: str | None = None) -> int:
    from harness.bisect import options as searching
    from harness.report.tables import show

    for file in (options.good_config, options.bad_config):
        if file is None or not file.is_file():
            raise UsageError(f"no .config {file}", hint="name both, with --good-config and --bad-config")
    good, bad = options.good_config.absolute(), options.bad_config.absolute()
    apart = len(searching.difference(searching.values(good), searching.values(bad)))
    if options.dry_run:
        return _dry_run(options, [("Options", f"{apart} differ")], apart, 2)
    with _docket(options, words, name, apart) as docket:
        found = searching.search(good, bad, _case(options), docket)
    rows = [("Culprits" if number == 0 else "", change.text) for number, change in enumerate(found.culprits)]
    rows += [("Pulled in" if number == 0 else "", one.text) for number, one in enumerate(found.pulled)]
    rows += [
        ("Of", f"{found.differing} options that differ"),
        ("Steps", f"{found.steps} configurations in {found.runs} runs"),
        ("First bad", found.bad.text),
        ("Notes", str(docket.state.directory)),
    ]
    show(output.stdout(options), "The options that make the difference", rows)
    return FOUND


# ---- the user's own `git bisect run` -----------------------------------------------------------


def _step(options: argparse.Namespace) -> int:
    """Judge the tree that is checked out. Whatever goes wrong, git must not take it for a judgement."""
    from harness import attempt
    from harness.bisect.judge import Answer, Broken, Judge
    from harness.report import directory

    statuses = {Answer.GOOD: GOOD, Answer.BAD: BAD, Answer.SKIP: SKIPPED}
    try:
        cases = _checked_out(options)
        with output.progress(output.stdout(options)) as progress:
            output.ensure_tools(options, progress)
            attempted = attempt.make(
                layout=Layout.here(),
                store=Store.default(),
                runs=options.runs or directory.default_root(),
                progress=progress,
            )
            ruling = Judge(attempted, allowed=0.0).repeat(cases, options.repeat)
    except Broken as error:
        say(f"BROKEN: {error.message}", error.hint, error.detail)
        return STOP
    except HarnessError as error:
        say(error.message, error.hint, error.detail)
        return STOP
    say(ruling.text)
    return statuses[ruling.answer]


def _checked_out(options: argparse.Namespace) -> tuple[Case, ...]:
    """The cases of the tree here, dirty or not; of BISECT_HEAD where git does not check out."""
    from harness.bisect.history import Repository

    tree = (options.tree or Path.cwd()).expanduser().absolute()
    repository = Repository.of(tree)
    head = repository.run("rev-parse", "--quiet", "--verify", "BISECT_HEAD", check=False)
    variants = _Variants(options, kernels.load(options.kernel), repository)
    if head.status == 0:
        found = variants(head.output.strip(), "git-bisect-run")
    else:
        source = (Source(Provider.TREE, str(tree)),)
        found = tuple(replace(one, sources=source) for one in variants("HEAD", "git-bisect-run"))
    held = kernels.load(options.hold) if options.hold else None
    case = _case(options)
    pairs = [(one, held or one) for one in found]
    if options.side == "to":
        pairs = [(other, one) for one, other in pairs]
    return tuple(replace(case, kernel=old, next_kernel=new) for old, new in pairs)


# ---- what all have in common -------------------------------------------------------------------


def _case(options: argparse.Namespace, kernel: KernelDefinition | None = None) -> Case:
    from harness.scenarios import resolve

    kernel = kernel or kernels.load(options.kernel)
    return Case(
        kernel=kernel,
        next_kernel=kernel,
        recipe=DEFAULT_RECIPE,
        machine=machines.chosen(options),
        scenarios=resolve(options.scenario, Layout.here().scenarios, everything=True),
        seed=options.seed,
        snapshots=False,  # whether a candidate boots is part of the judgement
    )


@contextmanager
def _docket(
    options: argparse.Namespace, words: tuple[str, ...], name: str | None, candidates: int
) -> Iterator[Docket]:
    """What rules on the candidates, with its memory; when it is left by an error, it says how to go on."""
    from math import ceil, log2

    from harness import attempt
    from harness.bisect import state
    from harness.bisect.docket import Docket, Teller
    from harness.bisect.judge import Judge
    from harness.bisect.odds import per_turn
    from harness.report import directory

    root = state.default_root()
    memory = state.State.create(root, words) if name is None else state.State.open(root, name)
    turns = ceil(log2(max(2, candidates))) + 2
    try:
        with output.progress(output.stdout(options)) as progress:
            output.ensure_tools(options, progress)
            teller = Teller(progress)
            attempted = attempt.make(
                layout=Layout.here(),
                store=Store.default(),
                runs=options.runs or directory.default_root(),
                progress=teller.relay,
            )
            judge = Judge(attempted, per_turn(options.confidence, turns), teller.on_run)
            yield Docket(judge, memory, teller)
    except UsageError:
        raise
    except (HarnessError, KeyboardInterrupt):
        say(f"what was found is kept: `luh bisect --resume {memory.directory.name}` goes on")
        raise


def _resume(options: argparse.Namespace) -> int:
    from harness import cli
    from harness.bisect import state

    memory = state.State.open(state.default_root(), options.resume)
    os.chdir(memory.origin)
    again = cli.parse(list(memory.words))
    kinds = [(again.good_config or again.bad_config, _options), (again.series, _patches), (True, _commits)]
    search = next(function for wanted, function in kinds if wanted)
    return search(again, memory.words, memory.directory.name)


def _conclude(options: argparse.Namespace, docket: Docket, findings: list[Finding], case: Case) -> int:
    from harness.bisect import account
    from harness.report.tables import show

    console = output.stdout(options)
    scenarios = [name.rpartition("/")[2] for name in case.scenarios]
    for finding in findings:
        title = "The first bad commit" if finding.culprit else "No single commit can be named"
        rows = account.lines(finding)
        if text := account.mail(finding, scenarios, f"luh {' '.join(docket.state.words)}"):
            file = docket.state.directory / f"mail-{finding.side}.txt"
            file.write_text(text, encoding="utf-8")
            rows.append(("Mail", str(file)))
        rows.append(("Notes", str(docket.state.directory)))
        show(console, title, rows)
    return FOUND if all(finding.culprit for finding in findings) else NOT_FOUND


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability: write 0.99")
    return value
