# SPDX-License-Identifier: GPL-2.0-or-later
"""The vocabulary: what goes into an attempt, what the stages hand on, and what comes out.

Every type here is a frozen value. Stages take and return them; nothing else passes between stages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


# ---- what the user asks for -------------------------------------------------------------------


class Provider(StrEnum):
    """Where a kernel's source comes from."""

    TREE = "tree"  # a directory of the user's, never written to
    GIT = "git"  # a URL and a ref
    DEBIAN = "debian"  # a linux-source package
    TARBALL = "tarball"  # a URL or path, with its SHA-256


@dataclass(frozen=True, slots=True)
class Source:
    """One place that a kernel's source can come from.

    location: a directory, a git URL or directory, a package name, or a tarball's URL or path.
    pin: the git ref or the tarball's SHA-256 (hex); "" for the other providers.
    suite: the distribution suite that carries the package; "" for the other providers.
    place: of GIT: commits with the same one follow each other in one tree, so that make builds only what
    differs between them; "" for a tree of each ref's own.
    """

    provider: Provider
    location: str
    pin: str = ""
    suite: str = ""
    place: str = ""


class Medium(StrEnum):
    """What a series of patches is handed over in."""

    FOLDER = "folder"  # files that git am takes, in the order of their names
    MAIL = "mail"  # an mbox, a maildir, or a single message
    RANGE = "range"  # commits of a git repository
    MESSAGE = "message"  # the id of a message; b4 fetches the thread


@dataclass(frozen=True, slots=True)
class Series:
    """Patches that somebody wrote. location: a path, or the message's id; commits: of RANGE ("A..B")."""

    medium: Medium
    location: str
    commits: str = ""

    @property
    def name(self) -> str:
        """For a person: "7.3", "v2.mbox", "A..B", "20261125.1234@host"."""
        return self.commits or (self.location if self.medium is Medium.MESSAGE else Path(self.location).name)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What the digest of a kernel stands for.

    version, origin: of its source, for a person. tree: the digest of the source with its patches. config: the
    digest of the .config. toolchain: the compiler's and the linker's own words for their versions.
    """

    version: str
    origin: str
    tree: str
    config: str
    toolchain: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A kernel that was built before and is wanted again.

    config: its .config. abi: as in Kernel. strict: no other kernel will do; otherwise one is built, and what
    differs is said.
    """

    digest: str
    ingredients: Ingredients
    config: Path
    abi: tuple[tuple[str, str], ...] = ()
    strict: bool = True


@dataclass(frozen=True, slots=True)
class KernelDefinition:
    """A kernel to be built, as a YAML file in kernel-configs/ or of the user's describes it.

    sources: the providers to try, in this order. series: applied one after the other; upto: only so many of
    their patches, counted together (None: all).
    fragments: configuration fragments, merged in this order on tinyconfig; later ones win.
    config: a whole .config that takes tinyconfig's place; what the tree does not know of it is left out and
    what it lacks gets its default, as olddefconfig does.
    pin: the kernel that has to come of it, where that is known.
    watched: source files of which W=1's warnings are wanted.
    """

    name: str
    sources: tuple[Source, ...]
    series: tuple[Series, ...]
    fragments: tuple[Path, ...]
    upto: int | None = None
    config: Path | None = None
    pin: Pin | None = None
    watched: tuple[str, ...] = ()


class Accelerator(StrEnum):
    """How L1's processors are had. AUTO can be asked for, and REAL can only be found."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"
    REAL = "real"  # a real machine's own


WANTED_ACCELERATORS = (Accelerator.AUTO, Accelerator.KVM, Accelerator.TCG)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """The machine that L1 runs on. memory is in bytes; numa_nodes share it evenly.

    kernel_parameters are added to those that every boot gets, in both kernels. resets: an ordinary reboot
    starts the first kernel again; otherwise it ends the machine, because nobody asked for it.
    """

    memory: int = 1 * GiB
    cpus: int = 2
    numa_nodes: int = 1
    accelerator: Accelerator = Accelerator.AUTO
    kernel_parameters: tuple[str, ...] = ()
    resets: bool = False


@dataclass(frozen=True, slots=True)
class Selftest:
    """One of the kernel's own tests. name: its path below tools/testing/selftests, without a suffix.

    stages: 2 for one that goes on after a kexec. log: what the next kernel says where it is part of the
    kernel. option: without which it is not. script: what it is run by upstream, in place of NAME.c.
    named: the user asked for this one, so it has to be there.
    """

    name: str
    stages: int = 1
    log: str = ""
    option: str = ""
    script: str = ""
    named: bool = False

    @property
    def collection(self) -> str:
        """The folder that its Makefile is in."""
        return self.name.partition("/")[0]

    @property
    def program(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def source(self) -> str:
        return self.script or f"{self.name}.c"

    @property
    def title(self) -> str:
        """Its name in results."""
        return f"kselftest::{self.name}"


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt's input: two kernels (often the same), an image, a machine, and what is run on it.

    scenarios: pytest node ids or keywords below selftests/; or selftests: the kernel's own tests instead.
    seed: of every pattern and every random choice. vmcore: keep the memory of guests that fail or die.
    snapshots: hosts may start from snapshots instead of booting. jobs: how many scenarios run beside each
    other; 0 for as many as this machine has memory and processors for.
    """

    kernel: KernelDefinition
    next_kernel: KernelDefinition
    recipe: str
    machine: MachineSpec
    scenarios: tuple[str, ...]
    seed: int = 1
    vmcore: bool = False
    snapshots: bool = True
    jobs: int = 1
    selftests: tuple[Selftest, ...] = ()


# ---- what the stages hand on ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceTree:
    """A kernel tree on disk that nobody writes to. digest identifies its content."""

    path: Path
    digest: str
    version: str
    origin: str


@dataclass(frozen=True, slots=True)
class PatchedTree:
    """A source tree with a series applied. subjects: of the applied patches, in order.

    origin: where the source came from, for a person.
    """

    path: Path
    digest: str
    version: str
    subjects: tuple[str, ...]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Kconfig:
    """A resolved and checked .config."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class CompilerWarning:
    """A warning in a file of the tree; line is 0 where it is about an object as a whole."""

    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A built kernel. vmlinux has symbols and boots by PVH; bzimage is what kexec_file_load takes.

    modules: an erofs image with all of them in its root directory, or None where the kernel has none.
    slowness and appetite: the factors for deadlines, and for the machine's memory, that were chosen for a
    kernel without debugging options. abi: the versions of what it hands over ("kho", "luo", "memfd", ...), as
    its headers have them. hz: its timer's ticks a second, 0 where that is not known.
    """

    name: str
    digest: str
    release: str
    vmlinux: Path
    bzimage: Path
    config: Path
    subjects: tuple[str, ...]
    slowness: float = 1.0
    appetite: int = 1
    abi: tuple[tuple[str, str], ...] = ()
    ingredients: Ingredients | None = None
    modules: Path | None = None
    hz: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """A read-only root file system for L1."""

    name: str
    digest: str
    path: Path


@dataclass(frozen=True, slots=True)
class Program:
    """A test of the kernel's, built. options: what its folder's `config` asks for that this kernel lacks.

    path: the executable; None where there is nothing to start. seconds: how long the kernel's own runner
    would give it. problem: why it could not be built, with detail; missing: the tree does not have it.
    """

    test: Selftest
    digest: str = ""
    path: Path | None = None
    seconds: float = 45.0
    options: tuple[str, ...] = ()
    problem: str = ""
    detail: str = ""
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """A read-only disk of the machine's besides its root. name: its serial (/sys/block/vd?/serial)."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class AcceleratorChoice:
    """Which accelerator a machine uses, and why, in one line for a person.

    tsc: the kHz of the TSC that its guests will see; 0 where they have to find out.
    """

    accelerator: Accelerator
    reason: str
    tsc: int = 0

    @property
    def time_scale(self) -> float:
        """The factor for deadlines that were chosen for a machine with hardware virtualization."""
        return 5.0 if self.accelerator is Accelerator.TCG else 1.0


@dataclass(frozen=True, slots=True)
class Remote:
    """Where an SSH server is, and what proves who is who.

    identity: a private key; None for the agent's and those of ~/.ssh. known_hosts: a file besides the user's
    own; host_key: the server's key as known_hosts has it ("ssh-ed25519 AAAA..."), "" for what these say.
    """

    user: str
    host: str
    port: int = 22
    identity: Path | None = None
    known_hosts: Path | None = None
    host_key: str = ""

    def __str__(self) -> str:
        return f"ssh://{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


@dataclass(frozen=True, slots=True)
class Target:
    """A real machine as the host under test. bundle: a tar file with the agent and the payloads for it."""

    remote: Remote
    bundle: Path


@dataclass(frozen=True, slots=True)
class Access:
    """Ways into a machine besides the agent's port.

    terminal: a second console, for a shell. debugger: the Unix socket where QEMU waits for gdb before the
    first instruction; None to start at once. keys: a file system with the keys of an SSH server, which is
    reached through a port of this machine's loopback; None for a machine without a network card.
    firmware: whether what the firmware says of itself is on the console too.
    """

    terminal: bool = False
    debugger: Path | None = None
    keys: Path | None = None
    firmware: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """All that a machine needs: kernels, image, spec, accelerator, and the directory for its traces.

    vmcore: whether the memory of a guest that fails or dies is kept there.
    snapshots: the store that hosts may start from; None where each has to boot. jobs: how many scenarios run
    beside each other. crowding: how much slower each is therefore, and for all else that this machine does.
    launcher: words before QEMU's command line, for QEMU on another machine. target: the real machine in the
    place of QEMU's.
    """

    kernel: Kernel
    next_kernel: Kernel
    image: Image
    machine: MachineSpec
    choice: AcceleratorChoice
    directory: Path
    seed: int = 1
    access: Access = Access()
    launcher: tuple[str, ...] = ()
    target: Target | None = None
    disks: tuple[Disk, ...] = ()
    vmcore: bool = False
    snapshots: Path | None = None
    jobs: int = 1
    crowding: float = 1.0

    @property
    def appetite(self) -> int:
        """How many times the memory of a machine without them the checks of its kernels need."""
        return max(self.kernel.appetite, self.next_kernel.appetite)

    def for_host(self, machine: MachineSpec, directory: Path) -> Bench:
        """The bench of one host, with the memory that its kernels need besides."""
        machine = replace(machine, memory=machine.memory * self.appetite)
        return replace(self, machine=machine, directory=directory)

    @property
    def slowness(self) -> float:
        """By how much the slower one of its kernels is slower than one without checks of its own."""
        return max(self.kernel.slowness, self.next_kernel.slowness)

    @property
    def checking(self) -> bool:
        """Whether one of its kernels checks itself."""
        return self.slowness > 1

    @property
    def time_scale(self) -> float:
        """The factor for all deadlines: of the accelerator, of the slower of the two kernels, of the crowd.

        Somebody who looks at a stopped machine in a debugger has all the time that he wants.
        """
        if self.access.debugger:
            return 2000.0
        if self.target:
            return 10.0  # firmware, disks and services of a real machine
        return self.choice.time_scale * self.slowness * self.crowding


# ---- what comes out ---------------------------------------------------------------------------


class Outcome(StrEnum):
    """PASS; FAIL: the kernel is wrong; SKIP: it lacks what is needed; BROKEN: we or the machine failed."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    BROKEN = "BROKEN"


class Stage(StrEnum):
    """How far an attempt got: where its outcome was decided, in the order of its way."""

    MACHINE = "machine"
    SOURCE = "source"
    SERIES = "series"
    CONFIG = "config"
    BUILD = "build"
    IMAGE = "image"
    SELFTESTS = "selftests"  # the kernel's own tests, where these are run
    BOOT = "boot"  # the first kernel did not reach its agent
    KEXEC = "kexec"  # the next kernel did not
    SCENARIOS = "scenarios"


@dataclass(frozen=True, slots=True)
class Phase:
    """A named stretch of time. start is in seconds since the attempt began, on the monotonic clock."""

    name: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a live update, on the clock of the phases; of no length where it is one moment.

    within: by how many seconds its start can be off. known: how that is known.
    """

    name: str
    start: float
    seconds: float
    within: float
    known: str


@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """One kexec that was proved: the identity of the kernels before and after it, and where its time went."""

    from_release: str
    to_release: str
    from_boot_id: str
    to_boot_id: str
    kexec_count: int
    seconds: float
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Subtest:
    """What a program reported of a part of itself. reason: why it was skipped or failed, or ""."""

    name: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a kernel said against itself on the console, or how it died without a word (docs/crashes.md).

    kind: "kasan", "lockdep", "panic", ... title: function and kind, without addresses, as syzkaller titles
    a report: "KASAN: slab-use-after-free Read in kvm_gmem_fault". kernel: after how many kexecs, so 0 is the
    first kernel. at: seconds since power-on. number: of the report's first line on the console, from 0.
    before: up to ten lines that came before it. lines: the report itself. function: where it happened, as
    "NAME+0xOFFSET/0xSIZE" or "NAME"; place: the same as "FILE:LINE". Each is "" where it is not known.
    count: how often that kernel said it; all else is about the first time.
    """

    kind: str
    title: str
    kernel: int
    at: float
    number: int
    before: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    function: str = ""
    place: str = ""
    count: int = 1


class Death(StrEnum):
    """How a machine ended that nobody had ended, as QEMU saw it."""

    PANIC = "panic"  # the kernel told the panic device
    RESET = "reset"  # a reset: asked for by a reboot or a panic, or a triple fault
    POWEROFF = "poweroff"
    HANG = "hang"  # a CPU, or all of them, will not go on


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a machine that died. at: seconds since power-on. reason: what hangs, in one line.

    address: where the CPU was that ended it, 0 where that is not known; registers: of all CPUs, as lines.
    """

    death: Death
    at: float
    reason: str = ""
    address: int = 0
    registers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """The verdict on one scenario. reason: one line; detail: the whole story, for a FAIL or BROKEN.

    bytes_verified counts each byte once for each verifier (L1, L2) that found it right after a kexec.
    measurements: figures that the scenario recorded, by name with its unit. stage: BOOT or KEXEC where a
    kernel did not come up. subtests: where it is a program that reports parts of itself. findings: of its
    kernels, in the order of the console.
    """

    name: str
    outcome: Outcome
    seconds: float
    reason: str = ""
    detail: str = ""
    rules: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    updates: tuple[LiveUpdate, ...] = ()
    bytes_verified: int = 0
    measurements: tuple[tuple[str, float], ...] = ()
    stage: Stage = Stage.SCENARIOS
    subtests: tuple[Subtest, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def traces(self) -> str:
        """The name of the directory, inside the run's, that holds this scenario's traces."""
        return traces(self.name)


def traces(scenario: str) -> str:
    """A directory's name for a scenario's: test_basic.py::test_a[x-y] -> test_basic.test_a.x-y"""
    file, colons, function = scenario.partition("::")
    plain = re.sub(r"\.py::|\[|::", ".", Path(file).name + colons + function.rstrip("]"))
    return re.sub(r"[^\w.,+-]+", "_", plain)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and with what a run was made. commit: of the harness, "" where unknown. memory: in bytes."""

    harness: str
    commit: str
    python: str
    emulator: str
    system: str
    processor: str
    cpus: int
    memory: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt says: the worst outcome of its scenarios, or of the stage that ended it.

    kernel and next_kernel are None where the attempt ended before they were built. stage: where the outcome
    was decided.
    """

    outcome: Outcome
    reason: str
    directory: Path
    phases: tuple[Phase, ...] = ()
    scenarios: tuple[ScenarioResult, ...] = ()
    kernel: Kernel | None = None
    next_kernel: Kernel | None = None
    choice: AcceleratorChoice | None = None
    environment: Environment | None = None
    hint: str = ""
    detail: str = ""
    stage: Stage = Stage.SCENARIOS


Attempt = Callable[[Case], Verdict]


# ---- what a person sees while it runs ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """A moment in a running stage.

    phase: a short name in lower case ("build"); "" for how all of it gets on, which is not shown once it has
    finished. text: what happens now. done: 0.0 to 1.0, or None where unknown. left: an estimate of the
    seconds that remain, or None. finished: the phase's last update. outcome: what came of a finished phase.
    took: seconds that a finished phase took, where that is not the time since its first update.
    """

    phase: str
    text: str
    done: float | None = None
    left: float | None = None
    finished: bool = False
    outcome: Outcome = Outcome.PASS
    took: float | None = None


Progress = Callable[[Update], None]


def silent(update: Update) -> None:
    """A Progress that shows nothing."""


def waiting(progress: Progress, phase: str, what: str) -> Callable[[], None]:
    """Says on the progress that a phase waits for another run, which is at the same work."""
    return lambda: progress(Update(phase, f"waiting for another run, which {what}"))


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that the harness needs: what for, and the distribution package that brings it."""

    name: str
    purpose: str
    package: str
    required: bool = True
    found: str = field(default="")
