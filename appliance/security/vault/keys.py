"""From one master key to the keys of stores and files.

    store key  = HKDF-SHA256(master, info = canonical {"for": "store", "store": S, "vault": id})
    file key   = 32 random bytes, in the file's own header under the store key of S
    others     = the same rule with another "for"

A store is a folder of the home: who holds the key of one store can read no other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.core.vaulted import AREAS
from appliance.security import canonical

KEY, NONCE, TAG = 32, 12, 16
STORES = tuple(sorted(AREAS))


@dataclass(frozen=True, kw_only=True)
class StoreKeys:
    """The keys of all stores of one vault, of the key epoch `epoch`: what a process reads and writes with.

    `whole`: everything in the home is sealed, so a plain file there is somebody else's.
    """

    vault: str
    epoch: int
    whole: bool
    stores: dict[str, bytes]

    def __repr__(self) -> str:
        return f"StoreKeys(vault={self.vault!r}, epoch={self.epoch})"

    def to_json(self) -> dict[str, object]:
        """For the pipe or socket to another process of ours."""
        stores = {name: key.hex() for name, key in self.stores.items()}
        return {"vault": self.vault, "epoch": self.epoch, "whole": self.whole, "stores": stores}


def store_keys_from(held: object) -> StoreKeys:
    """As `to_json` gave them.

    Raises:
        ValueError, KeyError, TypeError: they are something else.
    """
    if not isinstance(held, dict):
        raise ValueError("no store keys")
    stores = {name: bytes.fromhex(held["stores"][name]) for name in STORES}
    if any(len(key) != KEY for key in stores.values()):
        raise ValueError("a store key has the wrong length")
    return StoreKeys(
        vault=str(held["vault"]), epoch=int(held["epoch"]), whole=held["whole"] is True, stores=stores
    )


def derived(master: bytes, purpose: str, **facts: str) -> bytes:
    """The key of `purpose` and `facts` below `master`."""
    info = canonical.encode({"cloister": "vault-1", "for": purpose, **facts})
    return HKDF(algorithm=hashes.SHA256(), length=KEY, salt=None, info=info).derive(master)


def store_keys(master: bytes, *, vault: str, epoch: int, whole: bool) -> StoreKeys:
    """The keys of all stores."""
    stores = {store: derived(master, "store", store=store, vault=vault) for store in STORES}
    return StoreKeys(vault=vault, epoch=epoch, whole=whole, stores=stores)


def new_key() -> bytes:
    """32 random bytes."""
    return os.urandom(KEY)


def wrap(key: bytes, secret: bytes, bound: object) -> str:
    """`secret` under `key` (AES-256-GCM, random nonce), bound to the canonical JSON of `bound`; hex."""
    nonce = os.urandom(NONCE)
    return (nonce + AESGCM(key).encrypt(nonce, secret, canonical.encode(bound))).hex()


def unwrap(key: bytes, wrapped: object, bound: object) -> bytes:
    """What `wrap` took.

    Raises:
        ValueError: another key, or something was altered.
    """
    try:
        whole = bytes.fromhex(str(wrapped))
        return AESGCM(key).decrypt(whole[:NONCE], whole[NONCE:], canonical.encode(bound))
    except (InvalidTag, ValueError, OverflowError):
        raise ValueError("this key does not open it") from None


def wrap_seed(master: bytes, seed: bytes, *, vault: str, bound: dict[str, object]) -> str:
    """A person's seed on its way to the agent, for one terminal session: whoever has the master reads it."""
    return wrap(derived(master, "sign-in", vault=vault), seed, bound)


def unwrap_seed(master: bytes, wrapped: object, *, vault: str, bound: dict[str, object]) -> bytes:
    """What `wrap_seed` took.

    Raises:
        ValueError: it is for another agent, person or session.
    """
    return unwrap(derived(master, "sign-in", vault=vault), wrapped, bound)
