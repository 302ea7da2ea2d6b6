# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are full, entries that are damaged, downloads that are cut off, and two runs at once."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broken.conftest import Bed, await_file

FLOOD = "def test_it(host):\n    host.files.memfd(4096).fill(seed=1)\n"


def test_disk_that_is_full_for_the_record(
    warm: Callable[..., Bed], small_disk: Callable[[str], Path]
) -> None:
    made = warm()
    made.runs = small_disk("4k")
    ran = made.run()
    assert ran.status == 3, ran.said
    assert "cannot write" in ran.said
    assert "No space left on device" in ran.said
    made.assert_clean()


def test_disk_that_is_full_of_a_console(
    warm: Callable[..., Bed], small_disk: Callable[[str], Path], standin: Callable[..., None]
) -> None:
    standin("kexec flood")
    made = warm(FLOOD)
    made.runs = small_disk("300k")
    ran = made.run()
    assert ran.status == 3, ran.said
    assert "No space left on device" in ran.said
    made.assert_clean()


@pytest.mark.parametrize("size", ["8k", "60k"], ids=["source", "build"])
def test_disk_that_is_full_in_the_store(
    bed: Callable[..., Bed], small_disk: Callable[[str], Path], size: str
) -> None:
    made = bed()
    made.store = small_disk(size)
    ran = made.run()
    assert (ran.status, ran.result["outcome"]) == (3, "BROKEN"), ran.said
    assert "disk is full" in ran.result["reason"] or "No space left" in ran.result["reason"]
    made.assert_clean()


# ---- entries of the store ---------------------------------------------------------------------


def test_damaged_kernel_is_noticed_and_built_again(warm: Callable[..., Bed]) -> None:
    made = warm()
    assert made.run().status == 0
    (vmlinux,) = made.store.glob("kernel/*/vmlinux")
    whole = vmlinux.read_bytes()
    vmlinux.write_bytes(whole[:-1] + b"x")
    ran = made.run()
    assert ran.status == 0, ran.said
    assert "kernel in the store was damaged and is made again: vmlinux" in ran.said
    assert vmlinux.read_bytes() == whole
    assert "was damaged" not in made.run().said
    made.assert_clean()


def test_two_runs_build_one_kernel_once_and_the_second_says_that_it_waits(
    warm: Callable[..., Bed], tmp_path: Path
) -> None:
    first = warm()
    makefile = first.folder / "linux" / "Makefile"
    text = makefile.read_text()
    recipe = "$(out)/vmlinux: $(objects)\n"
    count = first.folder / "built"
    assert recipe in text
    makefile.write_text(text.replace(recipe, f"{recipe}\t@echo x >> {count}; sleep 4\n"))
    second = Bed(first.folder, first.store, first.folder / "runs2", first.words)
    (tmp_path / "second").mkdir()
    with first.start() as one:
        await_file(count)
        second.folder = tmp_path / "second"
        with second.start() as two:
            assert two.wait(60) == 0
            assert one.wait(60) == 0
    assert count.read_text() == "x\n"
    digests = {bed.ended(0, time.monotonic()).result["kernel"]["digest"] for bed in (first, second)}
    assert len(digests) == 1
    first.assert_clean()


# ---- the network ------------------------------------------------------------------------------


class Cutting(http.server.BaseHTTPRequestHandler):
    """Promises much more than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"\xfd7zXZ\0" + b"x" * 1000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cutting() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/linux-7.3.tar.xz"
        server.shutdown()


def test_download_that_is_cut_off_every_time(warm: Callable[..., Bed], cutting: str) -> None:
    made = warm()
    digest = hashlib.sha256(b"the real one").hexdigest()
    (made.folder / "tiny.yaml").write_text(
        f"source:\n  - tarball: {cutting}\n    sha256: {digest}\nfragments: [{made.folder}/tiny.config]\n"
    )
    ran = made.run()
    assert (ran.status, ran.result["outcome"]) == (3, "BROKEN"), ran.said
    assert "cannot download" in ran.result["reason"]
    assert not [path for path in made.store.glob("source/*") if path.is_dir()]
    made.assert_clean()
