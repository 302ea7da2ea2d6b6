# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdict -> JUnit XML, as CI systems read it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from harness.case import Outcome, ScenarioResult, Verdict

_ELEMENTS = {Outcome.FAIL: "failure", Outcome.BROKEN: "error", Outcome.SKIP: "skipped"}
# XML 1.0 has no way to write these, not even as references.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict) -> str:
    """The document: a test case a scenario; one that stands for the attempt where no scenario ran."""
    return suite("luh", verdict.scenarios or (_attempt(verdict),))


def suite(name: str, results: Sequence[ScenarioResult]) -> str:
    """A document with one suite of that name."""
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(results)),
        failures=_count(results, Outcome.FAIL),
        errors=_count(results, Outcome.BROKEN),
        skipped=_count(results, Outcome.SKIP),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        suite.append(_case(result))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _attempt(verdict: Verdict) -> ScenarioResult:
    seconds = sum(phase.seconds for phase in verdict.phases)
    return ScenarioResult("attempt", verdict.outcome, seconds, verdict.reason, verdict.detail)


def _count(results: Sequence[ScenarioResult], outcome: Outcome) -> str:
    return str(sum(result.outcome is outcome for result in results))


def _case(result: ScenarioResult) -> ElementTree.Element:
    file, _, name = result.name.rpartition("::")
    case = ElementTree.Element(
        "testcase", classname=file.removesuffix(".py") or "luh", name=name, time=f"{result.seconds:.3f}"
    )
    if result.outcome in _ELEMENTS:
        element = ElementTree.SubElement(case, _ELEMENTS[result.outcome], message=_clean(result.reason))
        element.text = _clean(result.detail)
    return case


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
