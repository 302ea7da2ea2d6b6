# SPDX-License-Identifier: GPL-2.0-or-later
"""A series is the same in whatever it comes: a folder, an mbox, a maildir, commits, a thread by its id."""

from __future__ import annotations

import mailbox
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.case import Medium, Series, SourceTree, Update, silent
from harness.errors import InfraError, UsageError
from harness.kernel import patches, series
from harness.store import Store

Shell = Callable[[str, Path], str]
COMMITS = """\
sed -i 's/return 1/return 11/' kernel/fork.c; git commit -qam 'kernel: fork eleven'
printf 'int añadido; /* %060d = */\\n' 0 > mm/added.c; git add -A; git commit -qm 'mm: add one'
sed -i 's/return 11/return 12/' kernel/fork.c; git commit -qam 'kernel: fork twelve'
"""
SUBJECTS = ("kernel: fork eleven", "mm: add one", "kernel: fork twelve")


@pytest.fixture
def work(linux: Path, sh: Shell) -> Path:
    """A clone of the tree with three commits on top of the tag `base`."""
    sh(
        f"cp -r . ../work; cd ../work; git init -q; git add -A; git commit -qm base; git tag base\n{COMMITS}",
        linux,
    )
    return linux.parent / "work"


@pytest.fixture
def mails(work: Path, sh: Shell) -> Callable[..., list[bytes]]:
    """The commits as mails: a cover letter, and the patches in their order."""

    def make(*options: str) -> list[bytes]:
        sh(f"rm -rf ../mails; git format-patch -q --cover-letter -o ../mails {' '.join(options)} base", work)
        return [path.read_bytes() for path in sorted((work.parent / "mails").iterdir())]

    return make


def mbox(path: Path, messages: Sequence[bytes]) -> Series:
    box = mailbox.mbox(path)
    for message in messages:
        box.add(message)
    box.close()
    return Series(Medium.MAIL, str(path))


def subjects(one: Series, store: Store) -> list[str]:
    found = patches.gather((one,), store, silent)
    return [re.findall(r"^Subject: \[PATCH[^]]*\] (.*)$", path.read_text(), re.M)[0] for path in found]


def reply(message: bytes) -> bytes:
    head, _, body = message.decode().partition("\n\n")
    head = head.replace("Subject: ", "Subject: Re: ")
    quoted = "\n".join("> " + line for line in body.splitlines())
    return f"{head}\n\nLooks good, but\n\n--- a/mine\n+++ b/mine\n@@ -1 +1 @@\n-a\n+b\n\n{quoted}\n".encode()


def test_a_range_of_commits_is_applied_like_any_series(
    work: Path, checkout: Callable[[], SourceTree], store: Store
) -> None:
    patched = series.apply(checkout(), (Series(Medium.RANGE, str(work), "base..master"),), store, silent)
    assert patched.subjects == SUBJECTS
    assert "return 12" in (patched.path / "kernel/fork.c").read_text()


def test_the_first_patches_are_a_tree_of_their_own(
    work: Path, checkout: Callable[[], SourceTree], store: Store
) -> None:
    every = (Series(Medium.RANGE, str(work), "base..master"),)
    whole = series.apply(checkout(), every, store, silent)
    steps = [series.apply(checkout(), every, store, silent, upto) for upto in range(4)]
    assert [step.subjects for step in steps] == [SUBJECTS[:count] for count in range(4)]
    assert len({step.path for step in steps}) == 1
    assert steps[0].path != whole.path
    assert (steps[0].digest, steps[3].digest) == (checkout().digest, whole.digest)


def test_series_are_applied_one_after_the_other(
    work: Path, checkout: Callable[[], SourceTree], store: Store
) -> None:
    first, second = (Series(Medium.RANGE, str(work), commits) for commits in ("base..HEAD~1", "HEAD~1..HEAD"))
    assert series.apply(checkout(), (first, second), store, silent).subjects == SUBJECTS


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_a_thread_is_put_in_order(
    work: Path,
    mails: Callable[..., list[bytes]],
    checkout: Callable[[], SourceTree],
    store: Store,
    encoding: str,
    tmp_path: Path,
) -> None:
    """A cover letter, replies with quotes and diffs, a wrong order, and what mail makes of a patch."""
    cover, *parts = mails()
    encoded = [encode(part, encoding) for part in parts]
    box = mbox(
        tmp_path / "thread", [reply(parts[0]), encoded[2], encoded[0], cover, encoded[1], reply(cover)]
    )
    patched = series.apply(checkout(), (box,), store, silent)
    assert patched.subjects == SUBJECTS
    assert (patched.path / "mm/added.c").read_bytes() == (work / "mm/added.c").read_bytes()


def encode(message: bytes, encoding: str) -> bytes:
    import base64
    import quopri

    if encoding == "8bit":
        return message
    head, _, body = message.partition(b"\n\n")
    head = re.sub(rb"\n(MIME-Version|Content-[\w-]+):.*", b"", head)
    coded = quopri.encodestring(body) if encoding == "quoted-printable" else base64.encodebytes(body)
    kind = (
        f"\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: {encoding}"
    )
    return head + kind.encode() + b"\n\n" + coded


def test_a_maildir_is_a_mailbox(mails: Callable[..., list[bytes]], store: Store, tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "maildir")
    for message in reversed(mails()):
        box.add(message)
    assert subjects(Series(Medium.MAIL, str(tmp_path / "maildir")), store) == list(SUBJECTS)


def test_the_newest_version_counts(
    mails: Callable[..., list[bytes]], work: Path, sh: Shell, store: Store, tmp_path: Path
) -> None:
    old = mails()
    sh("git commit -q --amend -m 'kernel: fork a dozen'", work)
    box = mbox(tmp_path / "both", [*mails("-v2"), *old])
    assert subjects(box, store) == [*SUBJECTS[:2], "kernel: fork a dozen"]


def test_a_part_that_was_sent_again_replaces_its_former_version(
    mails: Callable[..., list[bytes]], work: Path, sh: Shell, store: Store, tmp_path: Path
) -> None:
    old = mails()
    sh("git commit -q --amend -m 'kernel: fork a dozen'", work)
    box = mbox(tmp_path / "partly", [*old, mails("-v2")[3]])
    assert subjects(box, store) == [*SUBJECTS[:2], "kernel: fork a dozen"]


def test_a_part_that_is_missing_is_named(
    mails: Callable[..., list[bytes]], store: Store, tmp_path: Path
) -> None:
    _, first, _, third = mails("-v3")
    with pytest.raises(UsageError, match=r"lacks patch 2 of 3 \(v3\)"):
        subjects(mbox(tmp_path / "torn", [third, first]), store)


def test_two_series_in_one_mailbox_are_not_mixed(
    mails: Callable[..., list[bytes]], work: Path, sh: Shell, store: Store, tmp_path: Path
) -> None:
    one = mails()
    sh("git commit -q --amend -m 'another: thing'", work)
    with pytest.raises(UsageError, match=r"more than one series.*another: thing"):
        subjects(mbox(tmp_path / "mixed", [*one, *mails()]), store)


def test_patches_without_numbers_stay_in_their_order(
    mails: Callable[..., list[bytes]], store: Store, tmp_path: Path
) -> None:
    assert subjects(mbox(tmp_path / "plain", mails("-N")), store) == list(SUBJECTS)


def test_a_single_message_is_a_series(
    mails: Callable[..., list[bytes]], store: Store, tmp_path: Path
) -> None:
    (tmp_path / "one.eml").write_bytes(mails("-N")[1].split(b"\n", 1)[1])
    assert subjects(Series(Medium.MAIL, str(tmp_path / "one.eml")), store) == [SUBJECTS[0]]


def test_a_series_is_the_same_by_its_content(
    mails: Callable[..., list[bytes]], store: Store, tmp_path: Path
) -> None:
    messages = mails()
    boxes = [mbox(tmp_path / name, messages) for name in ("one", "two")]
    assert len({patches.folder(box, store, silent) for box in boxes}) == 1


@pytest.mark.parametrize("commits", ["base..nowhere", "HEAD..HEAD"])
def test_a_range_without_commits_is_refused(work: Path, store: Store, commits: str) -> None:
    with pytest.raises(UsageError, match=re.escape(commits)):
        patches.gather((Series(Medium.RANGE, str(work), commits),), store, silent)


@pytest.fixture
def b4(mails: Callable[..., list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A b4 on PATH that fetches a thread, and fails as soon as the file `down` is beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    mbox(tmp_path / "lore", mails())
    script = f"""#!/bin/sh
[ -e {folder}/down ] && {{ echo 'Unable to connect'; exit 1; }}
[ "$1 $2 $4" = "mbox --mbox-name --outdir" ] && cp {tmp_path}/lore "$5/$3"
"""
    (folder / "b4").write_text(script)
    (folder / "b4").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(patches, "find_spec", lambda name: None)
    return folder


def test_a_thread_is_fetched_by_its_id_and_kept(b4: Path, store: Store) -> None:
    thread = Series(Medium.MESSAGE, "1234@host")
    assert subjects(thread, store) == list(SUBJECTS)
    assert (patches.folder(thread, store, silent) / patches.THREAD).exists()


def test_without_a_network_the_thread_is_taken_as_it_was(
    b4: Path, store: Store, updates: list[Update], monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = Series(Medium.MESSAGE, "1234@host")
    before = subjects(thread, store)
    (b4 / "down").touch()
    monkeypatch.setattr(patches, "NEW_SECONDS", 0.0)
    assert [path.name for path in patches.gather((thread,), store, updates.append)] != []
    assert subjects(thread, store) == before
    assert any("taking what was fetched before" in update.text for update in updates)


def test_without_a_network_a_new_thread_cannot_be_had(b4: Path, store: Store) -> None:
    (b4 / "down").touch()
    with pytest.raises(InfraError, match="b4 cannot fetch 1234@host") as caught:
        patches.gather((Series(Medium.MESSAGE, "1234@host"),), store, silent)
    assert "Unable to connect" in caught.value.detail


def test_without_b4_there_is_one_line_that_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "find_spec", lambda name: None)
    monkeypatch.setattr(patches, "find", lambda name: "")
    with pytest.raises(InfraError, match="b4 is not there"):
        patches.gather((Series(Medium.MESSAGE, "1234@host"),), store, silent)
