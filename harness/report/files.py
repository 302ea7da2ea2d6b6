# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what a run directory holds beside the scenarios' traces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.case import Case, Kernel, Verdict
from harness.errors import InfraError
from harness.report.directory import REPORT, point_latest
from harness.report.document import Document, document
from harness.report.ktap import ktap


def result_json(case: Case, verdict: Verdict) -> str:
    """The text of result.json."""
    return _text(document(case, verdict))


def _text(made: Document) -> str:
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def prepare() -> None:
    """Compile what `write` needs, for those who have nothing else to do until there is something to write."""
    from harness.report import html, junit  # a template engine and XML take long to import

    assert junit
    html.template()


def write(case: Case, verdict: Verdict, rules: Mapping[str, str] | None = None) -> None:
    """result.json, report.html, junit.xml, results.ktap and the configurations; then `latest` points here.

    rules: the contract's, by id, for the report.

    Raises InfraError where the disk does not take them.
    """
    from harness.report.html import page
    from harness.report.junit import junit

    directory = verdict.directory
    try:
        _write(directory / "junit.xml", junit(verdict))
        _write(directory / "results.ktap", ktap(verdict))
        made = document(case, verdict)
        _write(directory / "result.json", _text(made))
        _write(directory / REPORT, page(made, rules or {}))
        for kernel, name in ((verdict.kernel, "kernel.config"), (verdict.next_kernel, "next-kernel.config")):
            _copy_config(kernel, verdict, name)
        point_latest(directory)
    except OSError as error:
        raise InfraError(f"cannot write the results to {directory}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """The file whole, or none: half a result is worse than no result."""
    draft = path.with_name(f".{path.name}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _copy_config(kernel: Kernel | None, verdict: Verdict, name: str) -> None:
    if kernel:
        shutil.copyfile(kernel.config, verdict.directory / name)
