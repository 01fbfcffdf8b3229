"""From a passphrase to a key: Argon2id (RFC 9106), at a cost that is stored beside what it protects."""

from __future__ import annotations

import os
import time
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from appliance.core.errors import ConfigWrong

SHORTEST = 12
"""Characters of a passphrase, at least."""

_SALT, _KEY = 16, 32
_CEILING = 1 << 20  # KiB; a stored cost above it is an attack on the reader's memory


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one guess costs: memory in KiB, passes over it, lanes. The least is RFC 9106's second option."""

    memory: int = 64 << 10
    passes: int = 3
    lanes: int = 4

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {"memory": self.memory, "passes": self.passes, "lanes": self.lanes}


def read_cost(held: Any) -> Cost:
    """A stored cost.

    Raises:
        ValueError: it is weaker than RFC 9106's second option, or dearer than this reader pays (1 GiB).
    """
    if not isinstance(held, dict) or set(held) != {"memory", "passes", "lanes"}:
        raise ValueError("the cost of a passphrase is damaged")
    if not all(type(value) is int for value in held.values()):
        raise ValueError("the cost of a passphrase is damaged")
    least, cost = Cost(), Cost(**held)
    if cost.memory < least.memory or cost.passes < least.passes or not 1 <= cost.lanes <= 16:
        raise ValueError("the cost of a passphrase is too low")
    if cost.memory > _CEILING or cost.passes > 16:
        raise ValueError("the cost of a passphrase is too high")
    return cost


def new_salt() -> bytes:
    """16 random bytes."""
    return os.urandom(_SALT)


def stretch(passphrase: str, *, salt: bytes, cost: Cost) -> bytes:
    """The 32-byte key of a passphrase; it is taken in NFC, as keyboards differ in how they spell accents."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    derive = Argon2id(
        salt=salt, length=_KEY, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory
    )
    return derive.derive(unicodedata.normalize("NFC", passphrase).encode())


def calibrated(seconds: float = 1.0) -> Cost:
    """The cost that takes about `seconds` on this machine: more memory first, up to 512 MiB, never below
    the least."""
    cost = Cost()
    while cost.memory < 512 << 10:
        begun = time.perf_counter()
        stretch("calibration", salt=bytes(_SALT), cost=cost)
        if time.perf_counter() - begun > seconds / 2:
            break
        cost = replace(cost, memory=cost.memory * 2)
    return cost


def check_new(passphrase: str) -> None:
    """Refuse a passphrase that guessing finds.

    Raises:
        ConfigWrong: it is shorter than 12 characters, or one character over and over.
    """
    if len(passphrase) < SHORTEST or len(set(passphrase)) < 5:
        raise ConfigWrong(
            f"The passphrase is too easy to guess: it needs {SHORTEST} characters that differ.",
            "Take four or five words that do not belong together.",
        )
