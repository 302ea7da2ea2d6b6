# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian provider with a stand-in for apt-get: which mirror it asks for, and what it makes of failures.

The package that the stand-in hands out is a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.case import Provider, Source, silent
from harness.errors import InfraError
from harness.kernel import source
from harness.store import Store

Shell = Callable[[str, Path], str]
WANTED = (Source(Provider.DEBIAN, "linux-source-7.3", suite="trixie-backports"),)
CERTAIN = "Debian|Debian|http://mirror.example/debian/|{entry}:1"
SECURITY = "Debian|Debian-Security|http://mirror.example/debian-security/|x:1"
CONTROL = """\
Package: linux-source-7.3
Version: 7.3.1-1
Architecture: all
Maintainer: A <a@example>
Description: a kernel's source
"""
APT = """\
#!/bin/sh
# apt-get: says what the test wants it to say, and keeps the sources that it was given.
here={here}
echo "$@" >>$here/calls
case "$*" in
indextargets*) cat $here/targets ;;
*update) cp "$(dirname "$2")"/sources.list $here/; cat $here/update; exit $(cat $here/status) ;;
*download*) echo dlstatus:1:50.0:Retrieving; cp $here/*.deb . ;;
esac
"""


@pytest.fixture
def apt(tmp_path: Path, linux: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's directory: what its files hold is what it says."""
    here = tmp_path / "apt"
    (here / "package/usr/src").mkdir(parents=True)
    sh(
        f"""tar -cJf {here}/package/usr/src/linux-source-7.3.tar.xz linux
        mkdir {here}/package/DEBIAN
        cat >{here}/package/DEBIAN/control <<END
{CONTROL}END
        dpkg-deb -Znone --root-owner-group -b {here}/package {here}/linux-source-7.3_7.3.1-1_all.deb""",
        linux.parent,
    )
    (here / "keyring.gpg").touch()
    (here / "debian.sources").write_text(f"Types: deb\nSigned-By: {here}/keyring.gpg\n")
    (here / "targets").write_text(f"{SECURITY}\n{CERTAIN.format(entry=here / 'debian.sources')}\n")
    (here / "update").touch()
    (here / "status").write_text("0")
    (here / "bin").mkdir()
    (here / "bin/apt-get").write_text(APT.format(here=here))
    (here / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin:/usr/bin:/bin")
    return here


def test_the_package_comes_from_the_machines_own_mirror_with_its_keyring(apt: Path, store: Store) -> None:
    tree = source.checkout(WANTED, store, silent)
    assert tree.version == "7.3.1"
    assert tree.origin == "linux-source-7.3_7.3.1-1_all from trixie-backports"
    options = f"[signed-by={apt}/keyring.gpg target=Packages]"
    line = f"deb {options} http://mirror.example/debian/ trixie-backports main\n"
    assert (apt / "sources.list").read_text() == line


def test_nothing_is_asked_once_the_store_has_it(apt: Path, store: Store) -> None:
    tree = source.checkout(WANTED, store, silent)
    (apt / "calls").unlink()
    assert source.checkout(WANTED, store, silent) == tree
    assert not (apt / "calls").exists()


def test_a_mirror_is_known_by_its_name_before_the_first_update(apt: Path, store: Store) -> None:
    (apt / "targets").write_text("||http://a.example/debian-security/|x:1\n||http://a.example/debian/|x:1\n")
    source.checkout(WANTED, store, silent)
    assert " http://a.example/debian/ " in (apt / "sources.list").read_text()


def test_a_machine_without_a_debian_mirror(apt: Path, store: Store) -> None:
    (apt / "targets").write_text("Ubuntu|Ubuntu|http://a.example/ubuntu/|x:1\n")
    with pytest.raises(InfraError, match="no Debian mirror"):
        source.checkout(WANTED, store, silent)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Err:1 http://mirror.example trixie-backports InRelease\n  Could not resolve", "cannot be reached"),
        ("Err:1 http://mirror.example trixie-backports Release\n  404  Not Found", "has no suite trixie-b"),
        ("W: GPG error: the public key is not available: NO_PUBKEY 12", "signature .* cannot be verified"),
    ],
)
def test_a_failed_update_says_what_failed(apt: Path, store: Store, said: str, message: str) -> None:
    (apt / "update").write_text(said + "\n")
    (apt / "status").write_text("100")
    with pytest.raises(InfraError, match=message) as caught:
        source.checkout(WANTED, store, silent)
    assert said.split()[0] in caught.value.detail
    assert not list(store.root.glob("source/[0-9a-f]*"))
