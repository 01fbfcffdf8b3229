"""Signatures of people: Ed25519 over canonical JSON, with a word in front that says what is signed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.security import canonical

SEED = 32
"""Bytes of a person's secret: the seed of an Ed25519 key (RFC 8032)."""


class Signer(Protocol):
    """Signs for one person, wherever that person's key is."""

    @property
    def person(self) -> str:
        """The person's name."""

    def sign(self, payload: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `payload`."""


@dataclass(frozen=True, kw_only=True)
class SeedSigner:
    """Signs with a key held here, as after a passphrase was typed for one command."""

    person: str
    seed: bytes = field(repr=False)

    def sign(self, payload: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `payload`."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(payload)


def new_seed() -> bytes:
    """32 random bytes."""
    return os.urandom(SEED)


def public_of(seed: bytes) -> str:
    """The public key of a seed, 64 hex digits."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def payload(what: str, value: Any) -> bytes:
    """What is signed: no statement of one kind can stand for one of another kind."""
    return b"cloister/people/1/" + what.encode("ascii") + b"\0" + canonical.encode(value)


def sign(signer: Signer, what: str, value: Any) -> str:
    """The person's signature under `value` as a statement of the kind `what`, in hex."""
    return signer.sign(payload(what, value)).hex()


def holds(public: str, what: str, value: Any, signature: str) -> bool:
    """Whether `signature` is that of the key `public` under `value` as a `what`."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), payload(what, value))
    except (InvalidSignature, ValueError):
        return False
    return True


def digest(value: Any) -> str:
    """SHA-256 of the canonical spelling of `value`, in hex."""
    return hashlib.sha256(canonical.encode(value)).hexdigest()
