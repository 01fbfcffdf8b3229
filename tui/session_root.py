"""The part of the door (session.py) for whoever keeps the offline root keys: make, draft, sign. No home."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ConfigWrong
from appliance.core.files import write_bytes, write_private
from appliance.security.trust import root
from appliance.security.trust.words import words_of
from tui.session_bundle import read_card_file, root_facts
from tui.session_guard import anyone


@anyone
def root_key(to: Path) -> dict[str, Any]:
    """A new root key, written to `to`, which must not exist: keep it on a stick in a safe.

    Raises:
        ConfigWrong: the file is there.
    """
    if to.exists():
        raise ConfigWrong(f"{to} is there already.", "Choose another file: a root key is never written over.")
    key = Ed25519PrivateKey.generate()
    write_private(to, key.private_bytes_raw().hex().encode() + b"\n")
    public = key.public_key().public_bytes_raw().hex()
    return {"key": public, "words": words_of(public), "path": str(to)}


@anyone
def root_draft(
    to: Path,
    *,
    after: Path | None,
    roots: Sequence[str],
    cards: Sequence[Path],
    revoked: Sequence[str],
    lifetime: int,
) -> dict[str, Any]:
    """An unsigned document: the first, or the next `after` one, whose root keys stay unless new are given.

    `cards` are all signers of the new document, each a card file.

    Raises:
        TrustRefused: a damaged card or document, or keys that are no two of three.
    """
    old = root.read_root(after.read_bytes()) if after else None
    now = int(time.time())
    content = root.draft(
        version=old.version + 1 if old else 1,
        created=now,
        expires=now + lifetime,
        roots=roots or (old.roots if old else ()),
        signers=[(read_card_file(path), None) for path in cards],
        revoked={*revoked, *(old.revoked if old else ())},
    )
    write_bytes(to, content + b"\n")
    return root_facts(root.read_root(content)) | {"path": str(to)}


@anyone
def root_sign(path: Path, key: Path) -> dict[str, Any]:
    """Add the signature of one root key to the document in `path`.

    Raises:
        ConfigWrong: no key. TrustRefused: no document.
    """
    try:
        secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.read_text().strip()))
    except (OSError, ValueError) as problem:
        raise ConfigWrong(
            f"{key} holds no root key.", "Make one: cloister trust root key --to FILE"
        ) from problem
    content = root.sign(path.read_bytes(), secret)
    write_bytes(path, content + b"\n")
    return root_facts(root.read_root(content)) | {"path": os.fspath(path)}
