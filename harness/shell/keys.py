# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of one machine's SSH server: made anew for each, so that none is worth anything elsewhere."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness import command
from harness.deadline import Deadline

KIND = b"ssh-ed25519"
MAKE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Keys:
    """disk: an erofs image for the guest. identity: the private key that it lets in. host_key: its own, as a
    line of known_hosts has it after the name."""

    disk: Path
    identity: Path
    host_key: str


def make(folder: Path) -> Keys:
    """Make keys in a folder that is made for them, readable by this user alone."""
    inside = folder / "guest"
    inside.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    server, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public, secret = _raw(server)
    # As dropbear writes it (its source, signkey.c and ed25519.c): the kind, and both halves as one string.
    (inside / "host_key").write_bytes(_string(KIND) + _string(secret + public))
    (inside / "authorized_keys").write_text(f"{_line(client)} luh\n")
    identity = folder / "identity"
    identity.touch(mode=0o600)
    identity.write_bytes(
        client.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    disk = folder / "keys.erofs"
    waiting = Deadline.after(MAKE_SECONDS, "the disk with the keys")
    command.run(["mkfs.erofs", "-x-1", "--all-root", "--quiet", disk, inside], deadline=waiting)
    return Keys(disk, identity, _line(server))


def reached(keys: Keys, port: int, kernel: str) -> str:
    """How to get to the server behind that port of this machine: as a person, and for the scenarios."""
    known = keys.identity.with_name("known_hosts")
    known.write_text(f"[127.0.0.1]:{port} {keys.host_key}\n")
    return (
        "A root shell in it, from another terminal:\n"
        f"  ssh -p {port} -i {keys.identity} -o UserKnownHostsFile={known} root@127.0.0.1\n"
        "Scenarios on it:\n"
        f"  luh run --kernel {kernel} --target ssh://root@127.0.0.1:{port}"
        f" --identity {keys.identity} --known-hosts {known}"
    )


def _raw(key: Ed25519PrivateKey) -> tuple[bytes, bytes]:
    return key.public_key().public_bytes_raw(), key.private_bytes_raw()


def _string(data: bytes) -> bytes:
    """RFC 4251's string."""
    return len(data).to_bytes(4, "big") + data


def _line(key: Ed25519PrivateKey) -> str:
    public, _ = _raw(key)
    return f"{KIND.decode()} {base64.b64encode(_string(KIND) + _string(public)).decode()}"
