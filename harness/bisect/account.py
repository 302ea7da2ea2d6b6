# SPDX-License-Identifier: GPL-2.0-or-later
"""What a search found, in words: for a terminal, and as a mail to the commit's author. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from harness.bisect.history import Commit
from harness.bisect.judge import Evidence, Ruling
from harness.bisect.search import Finding

MAIL_COLUMNS = 72
MOST_SUSPECTS = 20


def lines(finding: Finding) -> list[tuple[str, str]]:
    """Label and text of each fact, in a reader's order."""
    culprit = finding.culprit
    facts = [("Side", f"{finding.side.words}: {finding.remark}")]
    if culprit:
        facts += [
            ("Culprit", f"{culprit.sha}\n{culprit.subject}"),
            ("Author", f"{culprit.author}, {culprit.date}"),
            ("Changes", finding.diffstat),
        ]
    else:
        facts.append(("One of", suspects(finding.suspects)))
    return [
        *facts,
        ("Last good", witness(*finding.last_good)),
        ("First bad", witness(*finding.first_bad)),
        *([("Revert", finding.revert)] if finding.revert else []),
        ("Steps", f"{finding.steps} candidates in {finding.runs} runs"),
    ]


def suspects(commits: Sequence[Commit]) -> str:
    """The commits that are left because they cannot be judged."""
    shown = [f"{one.short} {one.subject} ({one.author})" for one in commits[:MOST_SUSPECTS]]
    more = len(commits) - len(shown)
    return "\n".join([*shown, *([f"and {more} more"] if more else [])])


def witness(commit: Commit, ruling: Ruling) -> str:
    """A commit and what was seen of it."""
    seen = ruling.failed or ruling.passed
    where = f"\ntraces: {seen.directory}" if seen else ""
    return f"{commit.short} {commit.subject}\n{ruling.text}{where}"


def mail(finding: Finding, scenarios: Sequence[str], command: str) -> str:
    """A message to the author of the culprit, ready to be sent; "" where no single commit is to blame."""
    culprit = finding.culprit
    if culprit is None:
        return ""
    good, bad = finding.last_good, finding.first_bad
    paragraphs = [
        f"The live update scenario {', '.join(scenarios)} fails since commit {culprit.line}.",
        f"It is {finding.side.words} that is at fault: {finding.remark}.",
        _told("Before it", good[0], good[1]),
        _told("With it", bad[0], bad[1]),
        f"On the newest commit that was tried, {finding.revert}." if finding.revert else "",
        "The bisection was done by luh, the Live Update Harness. To reproduce it:",
    ]
    body = "\n\n".join(textwrap.fill(text, MAIL_COLUMNS) for text in paragraphs if text)
    detail = _reason(bad[1].failed)
    return (
        f"To: {culprit.author}\n"
        f"Subject: [REGRESSION] live update: bisected to {culprit.line}\n\n"
        f"{body}\n\n    {command}\n\n"
        + (f"What fails:\n\n    {detail}\n\n" if detail else "")
        + f"The commit:\n\n{textwrap.indent(finding.diffstat, ' ')}\n\n"
        f"Fixes: {culprit.line}\n#regzbot introduced: {culprit.sha}\n"
    )


def _told(when: str, commit: Commit, ruling: Ruling) -> str:
    tally = ruling.tally
    rate = f"{tally.fails} of {tally.runs} runs failed" if tally.runs else ruling.reason
    return f"{when} ({commit.line}): {rate}."


def _reason(evidence: Evidence | None) -> str:
    return f"{evidence.reason} ({evidence.stage})" if evidence else ""
