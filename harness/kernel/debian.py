# SPDX-License-Identifier: GPL-2.0-or-later
"""The DEBIAN provider: a linux-source package, through apt, without root and for any machine's release.

apt gets lists, a cache and a package database of its own in a temporary directory, and one source: the
mirror that the machine's apt already uses, with the suite that carries the package. Proxies, credentials
and time limits of the machine's apt.conf are kept; its hooks are not, they are for its own lists. apt
verifies the archive's signature and the package's hash (apt-secure(8)).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import command
from harness.case import Progress, Source, SourceTree, Update, waiting
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel import trees
from harness.store import Store, digest

FETCH_SECONDS = 3600.0
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
# The last two matter as root: apt's own user could not enter a directory below root's home.
APT_CONF = """\
#clear APT::Update;
#clear DPkg;
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
APT::Status-Fd "1";
Acquire::Languages "none";
"""
FORMAT = "$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(SOURCESENTRY)"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a Debian archive is, and the keyring that its signatures are checked with (None: apt's own)."""

    uri: str
    keyring: Path | None


def checkout(source: Source, store: Store, progress: Progress) -> SourceTree:
    """The tree of the package source.location in source.suite; the network is asked only once.

    Raises InfraError where there is no apt or no mirror, or the package cannot be had from it.
    """
    key = digest("debian", source.location, source.suite)
    holder = store.produce(
        "source",
        key,
        lambda draft: _fetch(source, draft, progress),
        deadline=Deadline.after(FETCH_SECONDS, f"another run's download of {source.location}"),
        waits=waiting(progress, "source", f"fetches {source.location}"),
    )
    record = trees.read_record(holder)
    if record is None:
        raise InfraError(f"the store's entry {holder} is damaged", hint=f"remove it: rm -r {holder}")
    return trees.source_tree(holder, record)


def _fetch(source: Source, draft: Path, progress: Progress) -> None:
    deadline = Deadline.after(FETCH_SECONDS, f"the download of {source.location}")
    if not command.find("apt-get"):
        raise InfraError("this machine has no apt, which the Debian provider needs")
    root = draft / "apt"
    progress(Update("source", f"looking for {source.location} in {source.suite}"))
    package = _download(source, root, _mirror(deadline), deadline, progress)
    progress(Update("source", f"unpacking {package.name}"))
    with package.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    tree = _unpack(package, root, draft / trees.TREE, deadline)
    trees.write_record(
        draft,
        trees.Record(digest("debian", content), trees.version(tree), f"{package.stem} from {source.suite}"),
    )
    shutil.rmtree(root)


def _download(source: Source, root: Path, mirror: Mirror, deadline: Deadline, progress: Progress) -> Path:
    """The package's file, below root."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "status").touch()
    conf = root / "apt.conf"
    conf.write_text(APT_CONF.format(root=root), encoding="utf-8")
    signed = f"signed-by={mirror.keyring} " if mirror.keyring else ""
    (root / "sources.list").write_text(
        f"deb [{signed}target=Packages] {mirror.uri} {source.suite} main\n", encoding="utf-8"
    )

    def show(line: str) -> None:
        # apt's README.progress-reporting: dlstatus:<file>:<percent>:<text>
        if match := re.match(r"dlstatus:[^:]*:([\d.]+):", line):
            text = f"downloading {source.location} from {source.suite}"
            progress(Update("source", text, done=float(match[1]) / 100))

    for action in (["update"], ["download", source.location]):
        done = command.run(
            ["apt-get", "-c", conf, "-q", *action],
            cwd=root,
            env={"LC_ALL": "C"},
            deadline=deadline,
            on_line=show if action[0] == "download" else None,
            check=False,
        )
        if done.status != 0:
            raise _failure(source, action[0], done.output)
    packages = list(root.glob("*.deb"))
    if len(packages) != 1:
        raise InfraError(f"apt has not downloaded {source.location}", detail=done.tail)
    return packages[0]


def _failure(source: Source, action: str, output: str) -> InfraError:
    errors = "\n".join(line for line in output.splitlines() if line.startswith(("E:", "W:", "Err:")))
    if re.search(r"NO_PUBKEY|not signed|EXPKEYSIG|BADSIG|signatures? ", errors):
        return InfraError(
            f"the signature of {source.suite} cannot be verified",
            hint="update the package debian-archive-keyring",
            detail=errors,
        )
    if action == "download" and "Unable to locate package" in errors:
        return InfraError(f"there is no package {source.location} in {source.suite}", detail=errors)
    if action == "update" and re.search(r"^\s+404 ", output, re.MULTILINE):
        return InfraError(f"the machine's Debian mirror has no suite {source.suite}", detail=errors)
    return InfraError(
        f"the package registry cannot be reached for {source.location} ({source.suite})",
        hint="check the network and the proxy settings of apt",
        detail=errors or output,
    )


def _unpack(package: Path, root: Path, tree: Path, deadline: Deadline) -> Path:
    """The kernel tree out of the tarball that the package holds."""
    command.run(["dpkg-deb", "--extract", package, root / "package"], deadline=deadline)
    tarballs = list(root.glob("package/usr/src/linux-source-*.tar.*"))
    if len(tarballs) != 1:
        raise InfraError(f"{package.name} holds {len(tarballs)} kernel tarballs, not one")
    tree.mkdir()
    trees.unpack(tarballs[0], tree, deadline)
    if not trees.is_kernel(tree):
        raise InfraError(f"{package.name} holds no kernel tree")
    return tree


# ---- the machine's mirror ---------------------------------------------------------------------


def _mirror(deadline: Deadline) -> Mirror:
    """The first Debian archive of the machine's sources.

    apt knows an archive's origin only after an `apt-get update`, which is not ours to run; before that,
    the usual name of the archive's directory has to do.
    """
    done = command.run(
        ["apt-get", "indextargets", "--format", FORMAT, "Created-By: Packages"],
        deadline=deadline,
        check=False,
    )
    targets = [line.split("|") for line in done.output.splitlines() if line.count("|") == 3]
    certain = [target for target in targets if target[:2] == ["Debian", "Debian"]]
    likely = [target for target in targets if target[2].rstrip("/").endswith("/debian")]
    for _, _, uri, entry in [*certain, *likely]:
        return Mirror(uri, _keyring(entry))
    raise InfraError(
        "this machine's apt has no Debian mirror",
        hint="name a tarball or a git repository as the kernel's source",
    )


def _keyring(entry: str) -> Path | None:
    """The keyring of a sources entry ("FILE:NUMBER"), Debian's own where it names none, or None."""
    for name in _signed_by(entry):
        if name.startswith("/") and Path(name).is_file():
            return Path(name)
    return next((path for path in KEYRINGS if path.is_file()), None)


def _signed_by(entry: str) -> Iterator[str]:
    """What Signed-By says there; NUMBER counts lines in *.list and stanzas in *.sources (sources.list(5))."""
    name, _, number = entry.rpartition(":")
    if not (number.isdigit() and os.access(name, os.R_OK)):
        return
    text = Path(name).read_text(encoding="utf-8", errors="replace")
    if name.endswith(".sources"):
        parts, pattern = re.split(r"\n(?:[ \t]*\n)+", text.strip()), r"(?im)^signed-by:[ \t]*(\S+)"
    else:
        parts, pattern = text.splitlines(), r"signed-by=([^\s\],]+)"
    if 0 < int(number) <= len(parts) and (match := re.search(pattern, parts[int(number) - 1])):
        yield match[1]
