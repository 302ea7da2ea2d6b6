# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: entries appear whole or not at all, and are made once, however many ask."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineError, InfraError
from harness.store import SEAL, Store, digest, locked


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def soon() -> Deadline:
    return Deadline.after(10, "a test")


def write(text: str) -> Callable[[Path], None]:
    def make(draft: Path) -> None:
        (draft / "file").write_text(text)

    return make


def test_an_entry_is_made_once(store: Store) -> None:
    made = store.produce("kind", "key", write("first"), deadline=soon())
    again = store.produce("kind", "key", write("second"), deadline=soon())
    assert made == again == store.find("kind", "key")
    assert (again / "file").read_text() == "first"


def test_nothing_stays_of_an_entry_whose_making_failed(store: Store) -> None:
    def fail(draft: Path) -> None:
        (draft / "half").write_text("")
        raise InfraError("no")

    with pytest.raises(InfraError, match="no"):
        store.produce("kind", "key", fail, deadline=soon())
    assert store.find("kind", "key") is None
    assert not [path for path in (store.root / "kind").iterdir() if path.is_dir()]
    assert store.produce("kind", "key", write("then"), deadline=soon()).is_dir()


def test_who_comes_second_gets_what_the_first_makes(store: Store) -> None:
    makers: list[int] = []
    begun = threading.Event()

    def slow(draft: Path) -> None:
        makers.append(threading.get_ident())
        begun.set()
        time.sleep(0.3)

    threads = [
        threading.Thread(target=store.produce, args=("kind", "key", slow), kwargs={"deadline": soon()})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    begun.wait(5)
    assert store.find("kind", "key") is None
    for thread in threads:
        thread.join()
    assert len(makers) == 1


def test_a_full_disk_is_the_machines_fault_and_says_where(store: Store) -> None:
    def full(draft: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InfraError, match=f"cannot write to the store {store.root}: No space left") as caught:
        store.produce("kind", "key", full, deadline=soon())
    assert "LUH_STORE" in caught.value.hint


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "seal"])
def test_a_damaged_entry_is_made_again_and_that_is_told(tmp_path: Path, damage: str) -> None:
    told: list[str] = []
    store = Store(tmp_path / "store", told.append)
    entry = store.produce("kind", "key", write("first"), deadline=soon())
    file = entry / "file"
    match damage:
        case "flip":
            file.write_text("fIrst")
        case "cut":
            file.write_text("fir")
        case "remove":
            file.unlink()
        case "seal":
            (entry / SEAL).write_text("")
    again = store.produce("kind", "key", write("second"), deadline=soon())
    assert (again / "file").read_text() == "second"
    assert len(told) == 1
    assert "damaged" in told[0]
    assert [path.name for path in (store.root / "kind").iterdir() if path.is_dir()] == ["key"]


def test_what_a_killed_run_began_is_cleared_away(store: Store) -> None:
    half = store.root / "kind" / ".key.abcd"
    half.mkdir(parents=True)
    (half / "vmlinux").write_text("half")
    store.produce("kind", "key", write("whole"), deadline=soon())
    assert not half.exists()


def test_who_waits_says_so_once_and_who_does_not_is_silent(tmp_path: Path, store: Store) -> None:
    said: list[str] = []
    store.produce("kind", "key", write("first"), deadline=soon(), waits=lambda: said.append("kind"))
    assert said == []
    lock = tmp_path / "lock"
    with locked(lock, soon()), pytest.raises(DeadlineError):
        take(lock, waits=lambda: said.append("lock"))
    assert said == ["lock"]


def take(lock: Path, waits: Callable[[], None] = lambda: None) -> None:
    with locked(lock, Deadline.after(0.2, "a wait"), waits=waits):
        pass


def test_a_held_lock_is_waited_for_no_longer_than_the_deadline(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, soon()), pytest.raises(DeadlineError, match="a wait"):
        take(lock)


def test_readers_share_a_lock_and_keep_writers_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, soon(), shared=True), locked(lock, soon(), shared=True), pytest.raises(DeadlineError):
        take(lock)


def test_digests_tell_the_parts_apart(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ab")
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(file) == digest("ab") == digest(b"ab")
