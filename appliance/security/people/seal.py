"""A person's secret under that person's passphrase: Argon2id, then AES-256-GCM.

The name and the public key are authenticated with it, so that a sealed secret cannot be given to another
person. It protects the key that signs; the site's data has slots of its own.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.security import canonical
from appliance.security.passphrase import Cost, new_salt, read_cost, stretch
from appliance.security.people.signing import SEED, public_of

_NONCE = 12


def seal(name: str, seed: bytes, passphrase: str, cost: Cost) -> str:
    """The sealed secret, as canonical JSON."""
    salt, nonce = new_salt(), os.urandom(_NONCE)
    key = stretch(passphrase, salt=salt, cost=cost)
    box = AESGCM(key).encrypt(nonce, seed, _bound(name, public_of(seed), cost))
    held = {"v": 1, "cost": cost.to_json(), "salt": salt.hex(), "nonce": nonce.hex(), "box": box.hex()}
    return canonical.encode(held).decode()


def unseal(sealed: str, name: str, public: str, passphrase: str) -> bytes | None:
    """The secret, or None if the passphrase is not the one.

    Raises:
        ValueError: what is stored is damaged, or asks for a cost outside of what is paid.
    """
    held: dict[str, Any] = json.loads(sealed)
    cost = read_cost(held["cost"])
    key = stretch(passphrase, salt=bytes.fromhex(held["salt"]), cost=cost)
    try:
        seed = AESGCM(key).decrypt(
            bytes.fromhex(held["nonce"]), bytes.fromhex(held["box"]), _bound(name, public, cost)
        )
    except InvalidTag:
        return None
    return seed if len(seed) == SEED and public_of(seed) == public else None


def _bound(name: str, public: str, cost: Cost) -> bytes:
    return canonical.encode({"v": 1, "name": name, "public": public, "cost": cost.to_json()})
