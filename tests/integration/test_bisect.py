# SPDX-License-Identifier: GPL-2.0-or-later
"""`luh bisect` among commits on a real kernel: each fault is found, by the side that it is on.

The history is Linux 7.3 with our series, and eight commits on top of that, of which git takes one first that
does not compile or hangs while it boots. A step compiles what a commit changes, since they share a tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import attempt, command
from harness.deadline import Deadline
from harness.kernel import definition, trees
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
    "\tr = GMEM_I(inode)->frozen ? -EPERM :\n\t    kvm_gmem_restored_punch",
    "\tr = GMEM_I(inode)->frozen ? -EBUSY :\n\t    kvm_gmem_restored_punch",
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

OOPSED = "NULL pointer dereference in kvm_gmem_luo_retrieve, after kexec 1, virt/kvm/guest_memfd_luo.c:"


def note(number: int) -> Change:
    head = "// SPDX-License-Identifier: GPL-2.0-only\n"
    return Change(f"KVM: note {number}", LUO, head, f"{head}/* Note {number}. */\n")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change, Change], Path]:
    """A repository whose fourth commit is a trouble, mended by the fifth, and whose sixth is the fault."""
    store, layout = Store.default(), Layout.here()
    kernel = definition.load("linux-7.3", configs=layout.configs, patches=layout.patches)
    patched = attempt.patch_trees((kernel,), store, attempt.Timeline(lambda update: None))[kernel]
    tree = tmp_path_factory.mktemp("history") / "linux"
    files = (LUO, GMEM, MAIN)

    def git(*words: str | Path) -> None:
        quick = ("-c", "core.compression=0", "-c", "core.fsync=none", "-c", "gc.auto=0")
        deadline = Deadline.after(GIT_SECONDS, "git")
        command.run(["git", "-C", tree, *quick, *words], env=IDENTITY, deadline=deadline)

    tree.mkdir()
    git("init", "-q", "-b", "main")
    with trees.still(patched, Deadline.after(GIT_SECONDS, "a tree")):
        git(f"--work-tree={patched.path}", "add", "--all", "--force", ".")
    git("commit", "-q", "-m", "Linux 7.3 with the series")
    git("tag", "good")

    def make(trouble: Change, fault: Change) -> Path:
        git("update-ref", "refs/heads/main", "good")
        git("read-tree", "good")
        git("checkout-index", "--force", "--", *files)  # the rest is nobody's business
        notes = map(note, range(1, 6))
        before, after = [next(notes) for _ in range(3)], list(notes)
        for change in (*before, trouble, trouble.undone(), fault, *after):
            change(tree)
            git("commit", "-q", "-m", change.subject, "--", change.file)
        return tree

    return make


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
    (tmp_path / "test_own.py").write_text(SCENARIO)
    words = ("--tree", history(trouble, fault), "--good", "good", "--bad", "main", "--apply", "none")
    how = ("--scenario", tmp_path / "test_own.py", "--accel", "tcg", "--confidence", confidence)
    places = {"LUH_BISECTIONS": str(tmp_path / "bisections"), "LUH_RUNS": str(tmp_path / "runs")}
    env = {**ENVIRONMENT, **places, "COLUMNS": "200"}
    deadline = Deadline.after(BISECT_SECONDS, "luh bisect")
    done = command.run([*LUH, "bisect", *words, *how], env=env, deadline=deadline, check=False)
    assert done.status == 0, done.output
    found = done.output.partition("The first bad commit")[2]
    assert fault.subject in found
    assert f"({side})" in found
    assert reason in found
    assert "reverting it on the bad end mends it" in found
    log = (tmp_path / "bisections/latest/log").read_text()
    steps = re.findall(r"^step \d+: .*$", log, re.MULTILINE)
    assert f"{trouble.subject}: skip: " in steps[0]
    # Eight commits are three steps, and one or two more for what cannot be judged.
    assert 3 <= len(steps) <= 5
    assert f"{len(steps)} candidates in " in found
