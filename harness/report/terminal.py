# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles to print on: colours where they are wanted, no control characters where nobody looks."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

PIPE_COLUMNS = 100


def console(stream: TextIO, *, color: bool | None = None) -> Console:
    """A console on the stream. color: None for what terminals do, which NO_COLOR and TERM=dumb change."""
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    painted = terminal and not os.environ.get("NO_COLOR") if color is None else color
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(
        file=stream,
        force_terminal=terminal or painted,
        color_system=("auto" if terminal else "standard") if painted else None,
        no_color=not painted,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )
