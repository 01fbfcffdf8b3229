"""Which arm of an A/B split somebody is in: always the same one, and nobody can tell it beforehand.

HMAC-SHA256 with the route's own random salt over who asks gives a number between 0 and 1; below the share
it is B. Raising the share moves people from A to B and nobody back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets


def new_salt() -> str:
    """128 random bits, in hex."""
    return secrets.token_hex(16)


def place(salt: str, scope: str, user: str | None) -> float:
    """Where a person stands between 0 and 1. `scope` is the id of the API key, `user` what the request says.

    Without `user` all who share a key are one person.
    """
    who = json.dumps([scope, user]).encode()  # as JSON, no two pairs read alike
    digest = hmac.digest(bytes.fromhex(salt), who, hashlib.sha256)
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def in_b(salt: str, scope: str, user: str | None, share: float) -> bool:
    """Whether this person is answered by B, who gets `share` of all people."""
    return place(salt, scope, user) < share
