# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan as jobs of a CI system, so that its scheduler spreads the cells over its runners. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from harness.case import Accelerator
from harness.matrix.plan import Cell, Plan

# The label of runners on which nested virtualization works, and of all others; ci/ explains them.
KVM_LABEL, TCG_LABEL = "kvm", "tcg"
# GitHub's limit for the jobs of a matrix.
MOST_JOBS = 256


def github(plan: Plan, file: str) -> str:
    """What `strategy.matrix` takes through fromJSON: a job for each cell, or for several where there are
    many.
    """
    shares = _shares(plan.cells, MOST_JOBS)
    include = [
        {"name": name, "runner": label, "cells": " ".join(f"--cell '{cell.name}'" for cell in cells)}
        for name, label, cells in shares
    ]
    return json.dumps({"include": include})


def gitlab(plan: Plan, file: str) -> str:
    """A child pipeline: a job for each cell, and one that joins them."""
    packages = "apt-get update && apt-get install -y git python3 python3-venv"
    jobs: dict[str, object] = {
        "stages": ["cells", "merge"],
        "default": {"image": "debian:bookworm", "before_script": [packages]},
    }
    for name, label, cells in _shares(plan.cells, MOST_JOBS):
        words = " ".join(f"--cell '{cell.name}'" for cell in cells)
        jobs[name] = {
            "stage": "cells",
            "tags": [label],
            "script": [f"./luh matrix {file} {words} --output results --install"],
            "artifacts": {"when": "always", "paths": ["results"], "expire_in": "2 weeks"},
            "allow_failure": {"exit_codes": [1, 3]},
        }
    jobs["merge"] = {
        "stage": "merge",
        "when": "always",
        "variables": {"LUH_HISTORY": "$CI_PROJECT_DIR/history.sqlite"},
        "cache": {"key": "luh-history", "paths": ["history.sqlite"]},
        # The history decides: what failed before is no news.
        "script": [
            f"./luh merge results --name {plan.name} --plan {file} --output joined || true",
            f"./luh history {plan.name} --html joined/night.html --junit joined/night.xml",
        ],
        "artifacts": {
            "when": "always",
            "paths": ["joined"],
            "reports": {"junit": "joined/night.xml"},
        },
    }
    return yaml.safe_dump(jobs, sort_keys=False)


def _shares(cells: Sequence[Cell], most: int) -> list[tuple[str, str, list[Cell]]]:
    """Cells in at most so many jobs, those of one label and pair of kernels together where they must be."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        key = cell.name if len(cells) <= most else cell.row
        groups.setdefault((key, _label(cell)), []).append(cell)
    return [(name, label, members) for (name, label), members in groups.items()]


def _label(cell: Cell) -> str:
    return TCG_LABEL if cell.case.machine.accelerator is Accelerator.TCG else KVM_LABEL
