# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the project keeps its data, beside this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders below the root of a checkout."""

    root: Path

    @classmethod
    def here(cls) -> Layout:
        """The checkout that this module is part of."""
        return cls(Path(__file__).resolve().parents[1])

    @property
    def configs(self) -> Path:
        return self.root / "kernel-configs"

    @property
    def patches(self) -> Path:
        return self.root / "kernel-patches"

    @property
    def recipes(self) -> Path:
        return self.root / "guest-images"

    @property
    def scenarios(self) -> Path:
        return self.root / "selftests"

    @property
    def kselftests(self) -> Path:
        return self.scenarios / "kselftest.yaml"

    @property
    def contract(self) -> Path:
        return self.root / "docs" / "contract.md"
