"""The part of the door (session.py) for whoever keeps the offline root keys: make, draft, sign. No home.

The file of a root key: {v, what, public, sealed}, canonical JSON; `sealed` is as people/seal.py makes it, the
seed of the Ed25519 key under Argon2id and AES-256-GCM. No root key is ever written plain, nor used so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ConfigWrong, NotAllowed
from appliance.core.files import write_bytes, write_private
from appliance.security import canonical
from appliance.security.passphrase import calibrated, check_new
from appliance.security.people.seal import seal, unseal
from appliance.security.people.signing import new_seed, public_of
from appliance.security.trust import root
from appliance.security.trust.identity import Card
from appliance.security.trust.words import words_of
from tui.session_bundle import read_card_file, root_facts
from tui.session_guard import anyone

_WHAT = "cloister root key"


@anyone
def root_key(to: Path, passphrase: str) -> dict[str, Any]:
    """A new root key, sealed in the file `to`, which must not exist: keep it on a stick in a safe.

    Raises:
        ConfigWrong: the file is there, or the passphrase is easy to guess.
    """
    check_free(to)
    return _sealed(to, new_seed(), passphrase)


@anyone
def check_free(to: Path) -> None:
    """Check that a root key can be written to `to`, before anybody types a passphrase. Raises ConfigWrong."""
    if to.exists():
        raise ConfigWrong(f"{to} is there already.", "Choose another file: a root key is never written over.")


@anyone
def root_seal(path: Path, passphrase: str) -> dict[str, Any]:
    """Seal a root key that lies plain in `path` (64 hex digits). The disk keeps a rest of the plain file.

    Raises:
        ConfigWrong: there is none, it is sealed already, or the passphrase is easy to guess.
    """
    seed = _plain(path)
    if seed is None:
        raise ConfigWrong(f"{path} holds no plain root key.", "It may be sealed already: trust root sign.")
    return _sealed(path, seed, passphrase)


def _sealed(to: Path, seed: bytes, passphrase: str) -> dict[str, Any]:
    check_new(passphrase)
    public = public_of(seed)
    box = canonical.decode(seal(_WHAT, seed, passphrase, calibrated()).encode())
    held = {"v": 1, "what": _WHAT, "public": public, "sealed": box}
    write_private(to, canonical.encode(held) + b"\n")
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
    same_signers: bool = False,
) -> dict[str, Any]:
    """An unsigned document: the first, or the next `after` one, whose root keys stay unless new are given.

    `cards` are all signers of the new document, each a card file; `same_signers` takes over those of `after`
    as well, but for whom a newer card is given.

    Raises:
        TrustRefused: a damaged card or document, or keys that are no two of three.
    """
    old = root.read_root(after.read_bytes()) if after else None
    now = int(time.time())
    new = [read_card_file(path) for path in cards]
    signers: list[tuple[Card, Sequence[str] | None]] = [(card, None) for card in new]
    if old is not None and same_signers:
        named = {card.name for card in new}
        kept = zip(old.cards, old.kinds, strict=True)
        signers += [(card, sorted(kinds)) for card, kinds in kept if card.name not in named]
    content = root.draft(
        version=old.version + 1 if old else 1,
        created=now,
        expires=now + lifetime,
        roots=roots or (old.roots if old else ()),
        signers=signers,
        revoked={*revoked, *(old.revoked if old else ())},
    )
    write_bytes(to, content + b"\n")
    return root_facts(root.read_root(content)) | {"path": str(to)}


@anyone
def root_sign(path: Path, key: Path, passphrase: Callable[[str], str]) -> dict[str, Any]:
    """Add the signature of one root key to the document in `path`; `passphrase` asks for that of a key.

    Raises:
        ConfigWrong: no key, or one that lies there plain. NotAllowed: another passphrase.
        TrustRefused: no document.
    """
    public, box = _held(key)
    root.read_root(path.read_bytes())  # before anybody types
    try:
        seed = unseal(box, _WHAT, public, passphrase(public))
    except (ValueError, KeyError, TypeError):
        raise _no_key(key) from None
    if seed is None:
        raise NotAllowed("The passphrase is wrong.", "Try again.")
    content = root.sign(path.read_bytes(), Ed25519PrivateKey.from_private_bytes(seed))
    write_bytes(path, content + b"\n")
    return root_facts(root.read_root(content)) | {"path": os.fspath(path)}


def _held(path: Path) -> tuple[str, str]:
    """The public key and the sealed box of a root key's file."""
    if _plain(path) is not None:
        raise ConfigWrong(
            f"The root key in {path} lies there plain: whoever finds the stick signs for all sites.",
            f"Seal it under a passphrase first: cloister trust root seal {path}",
        )
    try:
        held = canonical.decode(path.read_bytes().strip())
        if (held["v"], held["what"]) != (1, _WHAT):
            raise ValueError
        return str(held["public"]), canonical.encode(held["sealed"]).decode()
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_key(path) from None


def _plain(path: Path) -> bytes | None:
    """The seed in a file that holds nothing but it."""
    try:
        content = path.read_bytes().strip()
        return bytes.fromhex(content.decode("ascii")) if len(content) == 64 else None
    except (OSError, ValueError):
        return None


def _no_key(path: Path) -> ConfigWrong:
    return ConfigWrong(f"{path} holds no root key.", "Make one: cloister trust root key --to FILE")
