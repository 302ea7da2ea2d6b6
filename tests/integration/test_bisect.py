# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bisect` among commits on a real kernel: each fault is found, by the side that it is on.

One history is Linux 7.3 with our series, and eight commits on top of that, of which git takes one first that
does not compile or hangs while it boots; a step compiles what a commit changes, since they share a tree. The
other leads from Linux 7.2 to 7.3 and on, and our series is applied at each step.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import attempt, command
from harness.case import KernelDefinition, PatchedTree, SourceTree, silent
from harness.deadline import Deadline
from harness.kernel import definition, source, trees
from harness.layout import Layout
from harness.store import Store
from tests.bisect.conftest import IDENTITY
from tests.integration.conftest import ENVIRONMENT, LUH

GIT_SECONDS, BISECT_SECONDS = 900.0, 5400.0
SCENARIO = """
import errno
from harness.case import MiB
from harness.guest.errors import raises_errno


def test_it(host, seed):
    host.liveupdate.create_session("taken")
    with raises_errno(errno.EEXIST):
        host.liveupdate.create_session("taken")
    vm = host.kvm.create_vm()
    memory = vm.create_guest_memfd(1 * MiB, mmap=True, init_shared=True)
    memory.fill(seed=seed)
    session = host.liveupdate.create_session("vm0")
    session.preserve(vm, token=1)
    session.preserve(memory, token=2)
    with raises_errno(errno.EPERM):
        memory.punch_hole(0, 4096)
    host = host.live_update()
    session = host.liveupdate.retrieve_session("vm0")
    session.retrieve_guest_memfd(2).verify(seed=seed)
    session.finish()
"""
GMEM, LUO, MAIN = "virt/kvm/guest_memfd.c", "virt/kvm/guest_memfd_luo.c", "init/main.c"
SESSION = "kernel/liveupdate/luo_session.c"


@dataclass(frozen=True)
class Change:
    """A commit: in a file, one text in place of another."""

    subject: str
    file: str
    old: str
    new: str

    def __call__(self, tree: Path) -> None:
        text = (tree / self.file).read_text()
        assert text.count(self.old) == 1, self
        (tree / self.file).write_text(text.replace(self.old, self.new))

    def undone(self) -> Change:
        return Change(f"Revert {self.subject!r}", self.file, self.new, self.old)


BREAK = Change(
    "liveupdate: break the build", LUO, "\terr = kvm_gmem_luo_check(ser);", "\terr = kvm_gmem_luo_chekc(ser);"
)
HANG = Change(
    "init: hang",
    MAIN,
    "\twait_for_completion(&kthreadd_done);\n",
    "\twait_for_completion(&kthreadd_done);\n\tlocal_irq_disable();\n\tfor (;;)\n\t\tcpu_relax();\n",
)
OOPS = Change(
    "KVM: guest_memfd: trip over a pointer at retrieve",
    LUO,
    "\terr = kvm_gmem_restored_create(ser, file_inode(file));\n",
    "\tWRITE_ONCE(*(int *)NULL, 1);\n\terr = kvm_gmem_restored_create(ser, file_inode(file));\n",
)
ERRNO = Change(
    "KVM: guest_memfd: refuse with another error",
    GMEM,
    "\tif (READ_ONCE(GMEM_I(file_inode(file))->frozen))\n\t\treturn -EPERM;\n",
    "\tif (READ_ONCE(GMEM_I(file_inode(file))->frozen))\n\t\treturn -EBUSY;\n",
)
LOST = Change(
    "KVM: guest_memfd: leave a page out",
    LUO,
    "\t\tif (folio_test_hwpoison(folio)) {\n",
    "\t\tif (folio->index == 7)\n\t\t\tcontinue;\n\n\t\tif (folio_test_hwpoison(folio)) {\n",
)
FLAKE = Change(
    "KVM: guest_memfd: fail one retrieve in three",
    LUO,
    "\terr = kvm_gmem_restored_create(ser, file_inode(file));\n",
    "\terr = get_random_u32_below(3) ? kvm_gmem_restored_create(ser, file_inode(file)) : -EIO;\n",
)
TYPO = Change(
    "liveupdate: break the build of sessions",
    SESSION,
    "\tlist_add_tail(&session->list, &sh->list);\n",
    "\tlist_add_tial(&session->list, &sh->list);\n",
)
BUSY = Change(
    "liveupdate: say that a session's name is busy",
    SESSION,
    "\t\t\treturn -EEXIST;\n",
    "\t\t\treturn -EBUSY;\n",
)

OOPSED = "NULL pointer dereference in kvm_gmem_luo_retrieve, after kexec 1, virt/kvm/guest_memfd_luo.c:"


def notes(count: int, file: str) -> list[Change]:
    license = "// SPDX-License-Identifier: GPL-2.0"
    return [
        Change(f"{file}: note {number}", file, license, f"/* Note {number}. */ {license}")
        for number in range(1, count + 1)
    ]


@dataclass(frozen=True)
class Work:
    """A git tree. Its commits are of whole kernels; only the files that a test changes lie in it."""

    path: Path

    def git(self, *words: str | Path) -> None:
        quick = ("-c", "core.compression=0", "-c", "core.fsync=none", "-c", "gc.auto=0")
        deadline = Deadline.after(GIT_SECONDS, "git")
        command.run(["git", "-C", self.path, *quick, *words], env=IDENTITY, deadline=deadline)

    def begin(self) -> None:
        self.path.mkdir()
        self.git("init", "-q", "-b", "main")

    def take(self, tree: SourceTree | PatchedTree, subject: str) -> None:
        with trees.still(tree, Deadline.after(GIT_SECONDS, "a tree")):
            self.git(f"--work-tree={tree.path}", "add", "--all", "--force", ".")
        self.git("commit", "-q", "-m", subject)

    def lay(self, *files: str) -> None:
        self.git("checkout-index", "--force", "--", *files)

    def change(self, *changes: Change) -> None:
        for change in changes:
            change(self.path)
            self.git("commit", "-q", "-m", change.subject, "--", change.file)


def definition_of(name: str) -> KernelDefinition:
    layout = Layout.here()
    return definition.load(name, configs=layout.configs, patches=layout.patches)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change, Change], Path]:
    """A repository whose fourth commit is a trouble, mended by the fifth, and whose sixth is the fault."""
    kernel = definition_of("linux-7.3")
    patched = attempt.patch_trees((kernel,), Store.default(), attempt.Timeline(silent))[kernel]
    work = Work(tmp_path_factory.mktemp("history") / "linux")
    work.begin()
    work.take(patched, "Linux 7.3 with the series")
    work.git("tag", "good")

    def make(trouble: Change, fault: Change) -> Path:
        work.git("update-ref", "refs/heads/main", "good")
        work.git("read-tree", "good")
        work.lay(LUO, GMEM, MAIN)
        harmless = notes(5, LUO)
        work.change(*harmless[:3], trouble, trouble.undone(), fault, *harmless[3:])
        return work.path

    return make


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A repository that leads from Linux 7.2 to 7.3, without our series, and to a fault four commits on."""
    work = Work(tmp_path / "linux")
    work.begin()
    for name in ("linux-7.2", "linux-7.3"):
        work.take(source.checkout(definition_of(name).sources, Store.default(), silent), name)
    work.git("tag", "good", "HEAD~")
    work.lay(SESSION)
    harmless = notes(3, SESSION)
    work.change(harmless[0], TYPO, TYPO.undone(), BUSY, *harmless[1:])
    return work.path


def find(
    tmp_path: Path, tree: Path, fault: Change, side: str, reason: str, *words: str
) -> tuple[str, list[str]]:
    """Have it find the fault on its side, for that reason; returns its log, and the steps in there."""
    (tmp_path / "test_own.py").write_text(SCENARIO)
    places = {"LUH_BISECTIONS": str(tmp_path / "bisections"), "LUH_RUNS": str(tmp_path / "runs")}
    ends = ("--good", "good", "--bad", "main")
    how = ("--scenario", tmp_path / "test_own.py", "--accel", "tcg")
    done = command.run(
        [*LUH, "bisect", "--tree", tree, *ends, *how, *words],
        env={**ENVIRONMENT, **places, "COLUMNS": "200"},
        deadline=Deadline.after(BISECT_SECONDS, "luh bisect"),
        check=False,
    )
    assert done.status == 0, done.output
    found = done.output.partition("The first bad commit")[2]
    assert fault.subject in found
    assert f"({side})" in found
    assert reason in found
    assert "reverting it on the bad end mends it" in found
    log = (tmp_path / "bisections/latest/log").read_text()
    steps = re.findall(r"^step \d+: .*$", log, re.MULTILINE)
    assert f"{len(steps)} candidates in " in found
    return log, steps


@pytest.mark.long
@pytest.mark.parametrize(
    ("trouble", "fault", "side", "reason", "confidence"),
    [
        pytest.param(HANG, OOPS, "to", OOPSED, "0", id="oops"),
        pytest.param(BREAK, ERRNO, "from", "EBUSY", "0", id="errno"),
        pytest.param(BREAK, LOST, "from", "page 7", "0", id="lost-page"),
        pytest.param(HANG, FLAKE, "to", "EIO", "0.99", id="flake"),
    ],
)
def test_a_fault_in_a_real_kernel_is_found_on_its_side(
    history: Callable[[Change, Change], Path],
    tmp_path: Path,
    trouble: Change,
    fault: Change,
    side: str,
    reason: str,
    confidence: str,
) -> None:
    how = ("--apply", "none", "--confidence", confidence)
    _, steps = find(tmp_path, history(trouble, fault), fault, side, reason, *how)
    assert f"{trouble.subject}: skip: " in steps[0]
    # Eight commits are three steps, and one or two more for what cannot be judged.
    assert 3 <= len(steps) <= 5


@pytest.mark.long
def test_a_fault_between_two_lines_is_found_with_the_series_of_each(lines: Path, tmp_path: Path) -> None:
    log, steps = find(tmp_path, lines, BUSY, "from", "EBUSY", "--confidence", "0")
    assert {"series 7.2", "series 7.3"} <= set(re.findall(r"series [\d.]+\d", log))
    assert 2 <= len(steps) <= 5
