# SPDX-License-Identifier: GPL-2.0-or-later
"""A run for others: found by its name, packed into a small tarball with a summary for a mail, unpacked."""

from __future__ import annotations

import difflib
import hashlib
import io
import lzma
import re
import tarfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import record
from harness.case import Case, MiB, Outcome
from harness.errors import InfraError, UsageError
from harness.report import directory, words

Document = dict[str, Any]

SUFFIX = ".tar.xz"
SUMMARY = "SUMMARY.txt"
COLUMNS = 72
# What of a run directory is worth a mail: text. Kernels, images and dumps of memory can be made again.
PACKED = (
    *("*.json", "*.html", "*.xml", "*.ktap", "*.config", "*.log", "case/**/*"),
    *("*/console.log", "*/qemu.log", "*/qemu.argv"),
)
# Of a longer log the beginning and the end are kept.
LONGEST_FILE = 2 * MiB
LARGEST_UNPACKED = 256 * MiB
SPLAT_LINES = 30
MOST_NAMES = 12
FAILED = (Outcome.FAIL.value, Outcome.BROKEN.value)


# ---- finding a run ----------------------------------------------------------------------------


def find(word: str, runs: Path) -> Path:
    """The run directory that a word means: a path, a name below `runs`, or "latest"; or a packed run's file.

    Raises UsageError with the nearest names.
    """
    for path in (Path(word).expanduser(), runs / word):
        if path.is_dir() or (path.is_file() and path.name.endswith(SUFFIX)):
            return path.resolve()
    names = sorted(path.name for path in runs.glob("*Z-*"))
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5) or names[-3:]
    hint = (
        f"there are {', '.join(near)} in {words.place(runs)}" if near else f"{words.place(runs)} has no runs"
    )
    raise UsageError(f"there is no run {word!r}", hint=hint)


def only_failed(result: Document, case: Case) -> Case:
    """The case with only those of its scenarios, or of the kernel's own tests, that failed or broke."""
    if not case.selftests:
        return replace(case, scenarios=failed(result, case.scenarios))
    names = {one["name"] for one in result.get("scenarios", ()) if one["outcome"] in FAILED}
    if not (tests := tuple(test for test in case.selftests if test.title in names)):
        raise UsageError("nothing failed in that run", hint="leave --failed out to run all of it again")
    return replace(case, selftests=tests)


def failed(result: Document, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """The nodes of a run's scenarios that failed or broke, out of those that were asked for.

    Raises UsageError where none did.
    """
    names = [one["name"] for one in result.get("scenarios", ()) if one["outcome"] in FAILED]
    files = {Path(node.partition("::")[0]).name: node.partition("::")[0] for node in nodes}
    found = tuple(f"{files[name.partition('::')[0]]}::{name.partition('::')[2]}" for name in names)
    if not found:
        raise UsageError("nothing failed in that run", hint="leave --failed out to run all of it again")
    return found


# ---- a tarball --------------------------------------------------------------------------------


def pack(run: Path, target: Path) -> int:
    """Write the run as one tarball, the same bytes each time; returns its size. Raises InfraError."""
    began = int(directory.began(run).timestamp())
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        summary_text = summary(record.result(run))
        for name, data in [(SUMMARY, summary_text.encode()), *_contents(run)]:
            entry = tarfile.TarInfo(f"{run.name}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), began, 0o644
            archive.addfile(entry, io.BytesIO(data))
    packed = lzma.compress(content.getvalue(), preset=6)
    draft = target.with_name(f".{target.name}.new")
    try:
        draft.write_bytes(packed)
        draft.replace(target)
    except OSError as error:
        raise InfraError(f"cannot write {target}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return len(packed)


def _contents(run: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the run's files that are packed, sorted."""
    paths = {path for pattern in PACKED for path in run.glob(pattern) if path.is_file()}
    for path in sorted(paths - {run / SUMMARY}):
        data = path.read_bytes()
        if len(data) > LONGEST_FILE:
            half = LONGEST_FILE // 2
            left_out = f"\n[{words.size(len(data) - LONGEST_FILE)} left out]\n".encode()
            data = data[:half] + left_out + data[-half:]
        yield str(path.relative_to(run)), data


def unpack(tarball: Path, place: Path) -> Path:
    """The run directory that a tarball holds, below `place`, in a folder named by the tarball's content.

    Raises UsageError for what is no packed run: nothing outside of the folder is ever written.
    """
    try:
        data = tarball.read_bytes()
        files = dict(_members(data))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UsageError(f"{tarball} is no packed run: {error}") from error
    roots = {name.partition("/")[0] for name in files}
    if len(roots) != 1 or f"{(root := roots.pop())}/{record.FOLDER}/{record.FILE}" not in files:
        raise UsageError(f"{tarball} is no packed run", hint="`luh repro --pack RUN` makes one")
    folder = place / hashlib.sha256(data).hexdigest()[:12]
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InfraError(f"cannot unpack to {folder}: {error.strerror}") from error
    return folder / root


def _members(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """The plain files of a tarball with plain names; raises TarError where there is anything else."""
    total = 0
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        for entry in archive:
            total += entry.size
            parts = Path(entry.name).parts
            if entry.isdir():
                continue
            if not entry.isreg() or entry.name.startswith("/") or ".." in parts or len(parts) < 2:
                raise tarfile.TarError(f"{entry.name} is nothing that luh packs")
            if total > LARGEST_UNPACKED:
                raise tarfile.TarError("it is larger than any run")
            stream = archive.extractfile(entry)
            yield entry.name, stream.read() if stream else b""


# ---- a summary for a mail ---------------------------------------------------------------------


def summary(result: Document) -> str:
    """A run in plain text of 72 columns, to be read in a mail without its attachment."""
    return "\n".join(line.rstrip() for line in _summary(result)) + "\n"


def _summary(result: Document) -> Iterator[str]:
    kernel, following = result.get("kernel"), result.get("next_kernel")
    yield _subject(result)
    yield ""
    yield from _wrapped(_what_happened(result))
    yield ""
    for title, one in (("kernel", kernel), ("next kernel", following)):
        if one and not (title == "next kernel" and kernel and one["digest"] == kernel["digest"]):
            yield from _kernel(title, one)
    environment, case = result.get("environment"), result.get("case", {})
    if accelerator := result.get("accelerator"):
        machine = case["machine"]
        size = words.size(machine["memory_bytes"])
        yield from _field("host", f"{machine['cpus']} CPUs, {size}, {accelerator['name'].upper()}")
    if environment:
        yield from _field("emulator", environment["emulator"])
        yield from _field("harness", f"luh {environment['harness']} {environment['commit'][:12]}")
    yield from _field("seed", str(case.get("seed", "")))
    yield ""
    yield from _failures(result)
    yield "To reproduce, from a checkout of luh, with the attached tarball:"
    yield ""
    name = Path(result["directory"]).name
    yield "  ./luh doctor"
    yield f"  ./luh repro luh-{name}{SUFFIX}"
    yield f"  ./luh repro --failed luh-{name}{SUFFIX}"
    yield ""
    yield from _wrapped(
        "It finds or builds the same kernel from the source, patches and configuration above, and says what"
        " differs where it cannot be the same; --anyway runs it nevertheless."
    )


def _subject(result: Document) -> str:
    """A subject line: what a list's readers sort by."""
    release = (result.get("kernel") or {}).get("release", "")
    first = _first_failure(result)
    if not first:
        what = result["reason"] or f"{result['totals']['passed']} scenarios passed"
    else:
        titles = [finding["title"] for finding in first.get("findings", ())]
        what = titles[0] if titles else f"{words.scenario(first['name'])}: {first['reason']}"
    tag = "BUG" if result["outcome"] == Outcome.FAIL else "test"
    return textwrap.shorten(
        f"Subject: [{tag}] {what}{f' ({release})' if release else ''}", 120, placeholder="..."
    )


def _what_happened(result: Document) -> str:
    totals = result["totals"]
    ran = sum(totals[key] for key in ("passed", "failed", "skipped", "broken"))
    if not ran:
        return f"The run ended before its first scenario: {result['reason']}"
    counts = ", ".join(
        f"{totals[key]} {key}" for key in ("failed", "broken", "skipped", "passed") if totals[key]
    )
    return (
        "luh live-updated a host of virtual machines by kexec"
        f" ({words.count(totals['live_updates'], 'time')}) in {words.count(ran, 'scenario')}: {counts}."
    )


def _kernel(title: str, kernel: Document) -> Iterator[str]:
    yield from _field(title, f"{kernel['release']}, digest {kernel['digest']}")
    if made_of := kernel.get("ingredients"):
        yield from _field("source", made_of["origin"])
        for tool in made_of["toolchain"].splitlines():
            yield from _field("", tool)
    patches = kernel["patches"]
    for number, patch in enumerate(patches[:MOST_NAMES], 1):
        yield from _field("patches" if number == 1 else "", f"{number:2}. {patch}")
    if len(patches) > MOST_NAMES:
        yield from _field("", f"and {len(patches) - MOST_NAMES} more")
    yield from _field("config", f"tinyconfig and the fragments of case/; {kernel['config']}")


def _failures(result: Document) -> Iterator[str]:
    found = [one for one in result.get("scenarios", ()) if one["outcome"] in FAILED]
    for one in found[:MOST_NAMES]:
        yield from _wrapped(f"{one['outcome']}: {words.scenario(one['name'])}: {one['reason']}")
    if len(found) > MOST_NAMES:
        yield f"and {len(found) - MOST_NAMES} more"
    if found:
        yield ""
    first = _first_failure(result)
    splat = list(_splat(first)) if first else result["detail"].splitlines()[:SPLAT_LINES]
    # Quoted text keeps its width: a line of a kernel's that is folded is read wrongly.
    yield from (f"  {line}" for line in splat)
    if splat:
        yield ""


def _splat(scenario: Document) -> Iterator[str]:
    """The first report of a kernel, or what the scenario saw."""
    for finding in scenario.get("findings", ())[:1]:
        yield from finding["lines"][:SPLAT_LINES]
        return
    yield from scenario["detail"].splitlines()[:SPLAT_LINES]


def _first_failure(result: Document) -> Document | None:
    """The first scenario with the outcome of the run, else the first that failed."""
    found = [one for one in result.get("scenarios", ()) if one["outcome"] in FAILED]
    return next((one for one in found if one["outcome"] == result["outcome"]), found[0] if found else None)


def _field(name: str, text: str) -> Iterator[str]:
    head = f"{name + ':' if name else '':13}"
    yield from textwrap.wrap(
        text, COLUMNS, initial_indent=head, subsequent_indent=" " * 13, break_on_hyphens=False
    ) or [head]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(re.sub(r"\s+", " ", text), COLUMNS, break_on_hyphens=False)


# ---- then and now -----------------------------------------------------------------------------


def compare(then: Document, now: Document) -> list[tuple[str, str, str]]:
    """For a table: each scenario that ran now, how it ended then and how now."""
    before = {one["name"]: one for one in then.get("scenarios", ())}
    return [
        (
            words.scenario(one["name"]),
            before[one["name"]]["outcome"] if one["name"] in before else "not run",
            one["outcome"] + _same(before.get(one["name"]), one),
        )
        for one in now["scenarios"]
    ]


def _same(then: Document | None, now: Document) -> str:
    """Whether a failure is the same as before."""
    if not then or now["outcome"] not in FAILED or then["outcome"] != now["outcome"]:
        return ""
    return ", for the same reason" if then["reason"] == now["reason"] else f", but: {now['reason']}"
