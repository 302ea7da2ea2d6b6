# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel is built once for what goes into it, incrementally, and a failure names its first error."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import command
from harness.case import Kernel, Progress, Provider, Source, SourceTree, Update, silent
from harness.deadline import Deadline
from harness.errors import BuildError, InfraError, UsageError
from harness.kernel import build, config, series, source, toolchain
from harness.store import Store

Build = Callable[..., Kernel]


@pytest.fixture
def make(checkout: Callable[[], SourceTree], store: Store, tmp_path: Path) -> Build:
    """All four stages on the user's tree as it is now."""
    fragment = tmp_path / "base.config"

    def run(progress: Progress = silent, options: str = "CONFIG_EXPERT=y\n") -> Kernel:
        fragment.write_text(options)
        tree = series.apply(checkout(), (), store, progress)
        resolved = config.resolve(tree, (fragment,), store, progress)
        return build.build("mine", tree, resolved, store, progress)

    return run


def compiled(updates: list[Update]) -> list[str]:
    return [
        update.text.split(": ")[1]
        for update in updates
        if update.phase == "build" and " object" in update.text
    ]


def test_a_kernel_has_all_its_parts(make: Build) -> None:
    kernel = make()
    entry = kernel.vmlinux.parent
    assert kernel.name == "mine"
    assert kernel.release == "7.3.1"
    assert kernel.vmlinux.read_bytes()[:4] == b"\x7fELF"
    assert kernel.bzimage.stat().st_size > 0
    assert "CONFIG_EXPERT=y" in kernel.config.read_text()
    assert "start_kernel" in (entry / "System.map").read_text()
    assert "CC      init/main.o" in (entry / "build.log").read_text()
    assert json.loads((entry / "meta.json").read_text())["objects"] == 4


def test_a_kernel_has_a_disk_of_its_modules(make: Build) -> None:
    assert make().modules is None
    disk = make(options="CONFIG_EXPERT=y\nCONFIG_VIRTUALIZATION=y\nCONFIG_KVM=m\n").modules
    assert disk is not None
    shown = command.run(
        ["dump.erofs", "--path=/kvm.ko", disk], deadline=Deadline.after(30, "looking into the disk")
    )
    assert "/kvm.ko" in shown.output
    assert [path.name for path in disk.parent.iterdir() if path.is_dir()] == []


def test_a_kernel_that_checks_itself_gets_more_time_and_memory() -> None:
    assert build.slowness({"KVM": "y"}) == build.appetite({"KVM": "y"}) == 1
    assert build.appetite({"KASAN": "y"}) == 2
    lockdep, kasan = ({option: "y"} for option in ("PROVE_LOCKING", "KASAN"))
    assert 1.0 < build.slowness(lockdep) < build.slowness(kasan) < build.slowness(lockdep | kasan)


def test_progress_counts_objects_and_estimates_what_remains(make: Build, updates: list[Update]) -> None:
    make(updates.append)
    last = [update for update in updates if update.phase == "build" and not update.finished][-1]
    assert last.text == "4 of 5 objects: vmlinux"
    assert last.done == 0.8
    assert last.left is not None
    assert updates[-1].finished


def test_an_unchanged_kernel_is_not_built_again(make: Build, updates: list[Update]) -> None:
    first = make()
    assert make(updates.append) == first
    assert compiled(updates) == []


def test_an_edit_compiles_what_it_changes(make: Build, linux: Path, updates: list[Update]) -> None:
    first = make()
    (linux / "kernel/fork.c").write_text("int fork_me(void) { return 2; }\n")
    second = make(updates.append)
    assert second.digest != first.digest
    assert sorted(compiled(updates)) == ["kernel/fork.o", "vmlinux"]
    assert first.vmlinux.read_bytes() != second.vmlinux.read_bytes()


def test_an_edit_that_is_taken_back_finds_the_first_kernel(
    make: Build, linux: Path, updates: list[Update]
) -> None:
    first = make()
    original = (linux / "kernel/fork.c").read_text()
    (linux / "kernel/fork.c").write_text("int fork_me(void) { return 2; }\n")
    make()
    (linux / "kernel/fork.c").write_text(original)
    assert make(updates.append) == first
    assert compiled(updates) == []


def test_two_runs_at_once_build_once(make: Build) -> None:
    seen: list[Update] = []
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: make(seen.append), range(2))
    assert first == second
    assert len(compiled(seen)) == 4


def test_the_first_error_is_shown_with_file_line_and_log(make: Build, linux: Path, store: Store) -> None:
    (linux / "mm/memfd.c").write_text("int make_memfd(void)\n{\n\treturn nothing;\n}\nint twice = {{;\n")
    with pytest.raises(BuildError) as caught:
        make()
    assert caught.value.message.startswith("the kernel does not compile: mm/memfd.c:3: ")
    assert "nothing" in caught.value.message
    assert "return nothing;" in caught.value.detail
    assert str(store.root) not in caught.value.detail
    log = Path(caught.value.hint.removeprefix("the whole log: "))
    assert "CC      mm/memfd.o" in log.read_text()
    assert not list(store.root.glob("kernel/[0-9a-f]*"))


def test_a_kernel_that_another_store_built_comes_from_the_compiler_cache(
    linux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ccache knows a file again only where its command line has no path of the first tree."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    kernels = []
    for place in ("one", "another/place"):
        user = Path(shutil.copytree(linux, tmp_path / place / "linux"))
        store = Store(tmp_path / place / "store")
        tree = source.checkout((Source(Provider.TREE, str(user)),), store, silent)
        patched = series.apply(tree, (), store, silent)
        fragment = tmp_path / "debug.config"
        fragment.write_text("CONFIG_EXPERT=y\n")
        kernels.append(
            build.build("mine", patched, config.resolve(patched, (fragment,), store, silent), store, silent)
        )
    first, second = kernels
    assert first.digest == second.digest
    assert first.vmlinux.read_bytes() == second.vmlinux.read_bytes()
    assert str(tmp_path).encode() not in first.vmlinux.read_bytes()
    deadline = Deadline.after(10, "asking ccache")
    counts = command.run(["ccache", "--print-stats"], deadline=deadline).output
    assert "direct_cache_hit\t3" in counts.splitlines()


@pytest.mark.parametrize(
    ("name", "source"),
    [("blob.S", '.incbin "blob"\n'), ("blob.c", 'asm(".incbin \\"blob\\"");\n')],
    ids=["assembly", "C"],
)
def test_what_the_assembler_includes_is_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    """ccache would not see that it has changed."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    (tmp_path / name).write_text(source)
    for content in (b"the first one", b"another one"):
        (tmp_path / "blob").write_bytes(content)
        argv = [*shlex.split(toolchain.compiler()), "-nostdinc", "-MMD", "-c", name, "-o", "blob.o"]
        command.run(argv, cwd=tmp_path, deadline=Deadline.after(20, "compiling"))
        assert content in (tmp_path / "blob.o").read_bytes()


def test_what_the_cache_does_not_know_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's sources, whose headers the compiler tells of."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    gcc = tmp_path / "gcc"
    gcc.write_text(f'#!/bin/sh\necho called >> {tmp_path}/calls\nexec {shutil.which("gcc")} "$@"\n')
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "one.c").write_text("int one;\n")
    argv = [*shlex.split(toolchain.compiler()), "-nostdinc", "-MMD", "-c", "one.c"]
    for _ in range(2):
        command.run(argv, cwd=tmp_path, deadline=Deadline.after(20, "compiling"))
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]


def test_a_mended_tree_goes_on_from_there(make: Build, linux: Path, updates: list[Update]) -> None:
    good = (linux / "mm/memfd.c").read_text()
    (linux / "mm/memfd.c").write_text("broken")
    with pytest.raises(BuildError):
        make()
    (linux / "mm/memfd.c").write_text(good)
    assert make(updates.append).release == "7.3.1"
    assert "mm/memfd.o" in compiled(updates)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "ld: kernel/fork.o: in function `fork_me':\nfork.c:(.text+0x5): undefined reference to `x'",
            "undefined",
        ),
        ("make[2]: *** No rule to make target 'a.o', needed by 'b.a'.  Stop.", "No rule to make target"),
        ("", "the kernel does not compile"),
    ],
)
def test_errors_of_the_linker_and_of_make_are_the_kernels(output: str, message: str) -> None:
    error = build.failure(output, Path("/tree"), Path("/log"))
    assert isinstance(error, BuildError)
    assert message in error.message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.c:1: fatal error: error writing to /tmp/x.s: No space left on device", "the disk is full"),
        ("gcc: fatal error: Killed signal terminated program cc1", "out of memory"),
        ("/bin/sh: 1: flex: not found", "a tool that the build needs"),
        ("tools/objtool/elf.h:10:10: fatal error: gelf.h: No such file or directory", "a header"),
    ],
)
def test_faults_of_the_machine_are_not_the_kernels(output: str, message: str) -> None:
    error = build.failure(output, Path("/tree"), Path("/log"))
    assert isinstance(error, InfraError)
    assert message in error.message
    assert output in error.detail


def test_a_store_that_make_cannot_work_in_is_refused(
    checkout: Callable[[], SourceTree], tmp_path: Path
) -> None:
    spaced = Store(tmp_path / "a store")
    fragment = tmp_path / "base.config"
    fragment.write_text("CONFIG_EXPERT=y\n")
    tree = series.apply(checkout(), (), spaced, silent)
    with pytest.raises(UsageError, match="a space or a colon") as caught:
        config.resolve(tree, (fragment,), spaced, silent)
    assert "LUH_STORE" in caught.value.hint
