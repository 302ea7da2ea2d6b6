# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan: a YAML file that says which kernels, configurations, machines and scenarios to put together.

    from: [linux-7.2, linux-7.3]        # kernel definitions: names or paths
    to: [linux-7.3]                     # left out: the same
    configs:                            # fragments to add, by name; left out: none
      plain: []
      debug: [debug]
    machines:                           # left out: one as `luh run` has it
      small: {memory: 1G, cpus: 2}
      nodes: {memory: 2G, cpus: 4, numa_nodes: 2, accelerator: tcg}
    scenarios: [basic, kexec]           # each is a cell of its own
    jobs: 2                             # cells at once; left out: what fits into this machine
    exclude: ["linux-7.3>linux-7.2/*"]  # cells to leave out, by patterns of their names

A cell's name is FROM>TO/CONFIG/MACHINE/SCENARIO, of the parts that there are several of or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from harness.case import WANTED_ACCELERATORS, Accelerator, Case, GiB, KernelDefinition, KiB, MachineSpec, MiB
from harness.errors import UsageError

FIELDS = {"from", "to", "configs", "machines", "scenarios", "jobs", "exclude"}
MACHINE = {"memory", "cpus", "numa_nodes", "accelerator"}
UNITS = {"K": KiB, "M": MiB, "G": GiB}
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Cell:
    """One case of a matrix, with its place in the table."""

    going: str
    coming: str
    config: str
    machine: str
    scenario: str
    case: Case

    @property
    def name(self) -> str:
        return f"{self.going}>{self.coming}/{self.config}/{self.machine}/{self.scenario}"

    @property
    def row(self) -> str:
        """What of the name tells rows of a table apart."""
        return f"{self.going} > {self.coming}"

    @property
    def column(self) -> str:
        return "/".join(one for one in (self.config, self.machine, self.scenario) if one != DEFAULT)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file asks for. jobs: how many cells at once, None for what fits."""

    name: str
    cells: tuple[Cell, ...]
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Catalogues:
    """What a plan's names mean: a kernel's, a fragment's, a scenario word's."""

    kernel: Callable[[str], KernelDefinition]
    fragment: Callable[[str], Path]
    scenario: Callable[[str], tuple[str, ...]]
    recipe: str


def load(path: Path, known: Catalogues) -> Plan:
    """The plan in a file; raises UsageError with the field that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict) or not data.get("from"):
        raise UsageError(f"{path}: from: is missing", hint="a list of kernels; docs/matrix.md has an example")
    for name in data.keys() - FIELDS:
        raise UsageError(f"{path}: {name}: is no field", hint="there are: " + ", ".join(sorted(FIELDS)))
    try:
        return _plan(path, data, known)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from error


def cells(
    going: Sequence[KernelDefinition],
    coming: Sequence[KernelDefinition],
    configs: dict[str, tuple[Path, ...]],
    specs: dict[str, MachineSpec],
    scenarios: dict[str, tuple[str, ...]],
    recipe: str,
) -> tuple[Cell, ...]:
    """The product, kernels outermost."""
    made = product(going, coming, configs.items(), specs.items(), scenarios.items())
    return tuple(
        Cell(
            old.name,
            new.name,
            config,
            machine,
            scenario,
            Case(_with(old, config, extra), _with(new, config, extra), recipe, spec, nodes),
        )
        for old, new, (config, extra), (machine, spec), (scenario, nodes) in made
    )


def _with(kernel: KernelDefinition, config: str, extra: tuple[Path, ...]) -> KernelDefinition:
    if not extra:
        return kernel
    return replace(kernel, name=f"{kernel.name}-{config}", fragments=(*kernel.fragments, *extra))


def _plan(path: Path, data: dict[str, Any], known: Catalogues) -> Plan:
    going = [known.kernel(str(name)) for name in _list(data, "from")]
    coming = [known.kernel(str(name)) for name in _list(data, "to")] or going
    configs = {
        str(name): tuple(known.fragment(str(one)) for one in fragments or ())
        for name, fragments in (data.get("configs") or {DEFAULT: []}).items()
    }
    specs = {
        str(name): _machine(str(name), fields or {})
        for name, fields in (data.get("machines") or {DEFAULT: {}}).items()
    }
    words = [str(word) for word in _list(data, "scenarios") or ["basic"]]
    scenarios = {word: known.scenario(word) for word in words}
    left_out = [str(pattern) for pattern in _list(data, "exclude")]
    every = cells(going, coming, configs, specs, scenarios, known.recipe)
    kept = tuple(one for one in every if not any(fnmatchcase(one.name, pattern) for pattern in left_out))
    if not kept:
        raise UsageError("exclude: leaves no cell")
    jobs = data.get("jobs")
    if jobs is not None and not (isinstance(jobs, int) and jobs > 0):
        raise UsageError(f"jobs: {jobs!r} is no positive number")
    return Plan(path.stem, kept, jobs)


def _list(data: dict[str, Any], field: str) -> list[Any]:
    found = data.get(field) or []
    if not isinstance(found, list):
        raise UsageError(f"{field}: must be a list")
    return found


def _machine(name: str, fields: dict[str, Any]) -> MachineSpec:
    if not isinstance(fields, dict):
        raise UsageError(f"machines.{name}: must be a mapping")
    for field in fields.keys() - MACHINE:
        raise UsageError(f"machines.{name}.{field}: is no field", hint=", ".join(sorted(MACHINE)))
    accelerator = str(fields.get("accelerator", Accelerator.AUTO))
    if accelerator not in WANTED_ACCELERATORS:
        raise UsageError(
            f"machines.{name}.accelerator: there is no {accelerator}", hint=", ".join(WANTED_ACCELERATORS)
        )
    try:
        return MachineSpec(
            memory=_size(str(fields["memory"])) if "memory" in fields else MachineSpec().memory,
            cpus=int(fields.get("cpus", MachineSpec().cpus)),
            numa_nodes=int(fields.get("numa_nodes", 1)),
            accelerator=Accelerator(accelerator),
        )
    except ValueError as error:
        raise UsageError(f"machines.{name}: {error}") from error


def _size(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else int(text)
