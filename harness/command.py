# SPDX-License-Identifier: GPL-2.0-or-later
"""The only caller of subprocess: `run` for what ends by itself, `spawn` for what we end.

Every child leads a process group of its own, so that what it started ends with it, and is killed by the
kernel should this process die without a chance to clean up (PR_SET_PDEATHSIG, prctl(2)).
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError

GRACE_SECONDS = 2.0
TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. output has stdout and stderr as they were interleaved."""

    argv: tuple[str, ...]
    status: int
    output: str
    seconds: float

    @property
    def tail(self) -> str:
        return "\n".join(self.output.splitlines()[-TAIL_LINES:])


def run(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
) -> Completed:
    """Run argv to its end and return it with its output.

    env: added to this process's environment. log: a file that the output is appended to while it comes.
    on_line: called for every line, without its newline. check: raise InfraError for a status other than 0.
    Raises DeadlineError when the deadline passes; the whole process group is gone by then.
    """
    started = time.monotonic()
    lines: list[str] = []
    with ExitStack() as stack:
        keep = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        child = stack.enter_context(
            spawn(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        if stdin and child.stdin:
            with suppress(BrokenPipeError):
                child.stdin.write(stdin.encode())
            child.stdin.close()
        assert child.stdout is not None
        for line in _lines(child.stdout, deadline, argv):
            lines.append(line)
            if keep:
                keep.write(line + "\n")
            if on_line:
                on_line(line)
        status = _wait(child, deadline, argv)
    done = Completed(tuple(map(str, argv)), status, "\n".join(lines), time.monotonic() - started)
    if check and status != 0:
        raise InfraError(f"{_name(argv)} failed with status {status}", detail=done.tail)
    return done


@contextmanager
def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start argv; when the block is left, however that happens, its process group is ended.

    Raises InfraError when the program is not there or cannot be started.
    """
    try:
        child = subprocess.Popen(
            [*_dies_with_us(), *map(str, argv)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise InfraError(f"cannot start {_name(argv)}: {error.strerror}", hint="see `luh doctor`") from error
    try:
        with child:
            try:
                yield child
            finally:
                end([child])
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()


def find(program: str) -> str:
    """The path of a program on PATH, or ""."""
    return shutil.which(program) or ""


def _dies_with_us() -> list[str]:
    setpriv = find("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _name(argv: Sequence[str | Path]) -> str:
    return Path(argv[0]).name


def _lines(stream: IO[bytes], deadline: Deadline, argv: Sequence[str | Path]) -> Iterator[str]:
    """The stream's lines as they come, decoded; a last line without a newline counts."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(deadline.remaining):
                raise DeadlineError(f"{_name(argv)} did not end within the deadline: {deadline.purpose}")
            chunk = os.read(stream.fileno(), 65536)
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
            if not chunk:
                break
    if pending:
        yield pending.decode(errors="replace")


def _wait(child: subprocess.Popen[bytes], deadline: Deadline, argv: Sequence[str | Path]) -> int:
    try:
        return child.wait(deadline.remaining)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"{_name(argv)} did not end within the deadline: {deadline.purpose}") from None


def end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what is left of the children's groups, all at once: SIGTERM, a grace period, SIGKILL; an impatient
    second Ctrl-C only cuts the grace short."""
    try:
        running = [child for child in children if child.poll() is None]
        for child in running:
            _signal_group(child, signal.SIGTERM)
        grace = Deadline.after(GRACE_SECONDS, "ending processes")
        for child in running:
            with suppress(subprocess.TimeoutExpired):
                child.wait(grace.remaining)
    finally:
        for child in children:
            _signal_group(child, signal.SIGKILL)
        for child in children:
            child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
