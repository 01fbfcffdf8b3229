"""Masks: keystreams of AES-256-CTR that are added to a vector modulo 2**bits.

A site adds one of its own (from a seed that it deals out) and one for each other site of the cohort, which
the later of the two names subtracts. Keys are HKDF-SHA256 of the seed, or of the X25519 secret of the two
round keys; their info names federation, round, plan, cohort and vector by the context, and the pair, so that
no key is ever used for two vectors. The counter begins at 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from appliance.security import canonical

Bits = Literal[16, 24, 32]
Words = NDArray[np.unsignedinteger[Any]]
_BLOCK = 1 << 16  # values at a time: they and one keystream stay in the cache
_AT_ONCE = 64


def pair_key(secret: X25519PrivateKey, public: bytes, *, context: str, sites: tuple[str, str]) -> bytes:
    """The key of the mask that two sites share, from the round secret of one and the round key of the other.

    Raises:
        ValueError: `public` is no key, or one of small order.
    """
    shared = secret.exchange(X25519PublicKey.from_public_bytes(public))
    return _key(shared, ["pair", context, *sorted(sites)])


def self_key(seed: bytes, *, context: str, site: str) -> bytes:
    """The key of a site's own mask."""
    return _key(seed, ["self", context, site])


def commitment(seed: bytes, *, context: str, site: str) -> str:
    """What the site signs of its seed: it fixes it and, the seed being random, tells nothing of it."""
    said = canonical.encode(["seed", context, site])
    return hashlib.sha256(b"cloister/f1/secagg/commit\0" + said + seed).hexdigest()


def sign_of(site: str, other: str) -> int:
    """Whether `site` adds the mask it shares with `other` (1) or subtracts it (-1)."""
    return 1 if site < other else -1


def words(values: NDArray[np.int64], bits: Bits) -> Words:
    """Integers modulo 2**bits, in words of 2 or 4 bytes (24 bits in 4)."""
    return _cut(values.astype(np.uint16 if bits == 16 else np.uint32), bits)


def centred(total: Words, bits: Bits) -> NDArray[np.int64]:
    """The integers from -2**(bits - 1) up that `total` stands for."""
    found = _cut(total, bits).astype(np.int64)
    found[found >= 1 << bits - 1] -= 1 << bits
    return found


def to_bytes(total: Words, bits: Bits) -> bytes:
    """bits / 8 bytes a value, little-endian."""
    if bits == 24:
        return total.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return total.astype(f"<u{bits // 8}").tobytes()


def from_bytes(content: bytes | memoryview, bits: Bits) -> Words:
    """What `to_bytes` packed, writable.

    Raises:
        ValueError: the length is no multiple of a value's.
    """
    if bits != 24:
        return np.frombuffer(content, f"<u{bits // 8}").astype(np.uint16 if bits == 16 else np.uint32)
    wide = np.zeros((len(content) // 3, 4), dtype=np.uint8)
    wide[:, :3] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return wide.reshape(-1).view("<u4").astype(np.uint32)


def add_masks(total: Words, keys: Iterable[tuple[bytes, int]]) -> None:
    """Add to `total`, in place, the mask of each key times its sign."""
    waiting, size = iter(keys), total.itemsize
    zeros, stream = memoryview(bytes(_BLOCK * size)), bytearray(_BLOCK * size + 16)
    drawn = np.frombuffer(stream, total.dtype, _BLOCK)
    while taken := list(islice(waiting, _AT_ONCE)):
        ciphers = [
            (Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor(), sign) for key, sign in taken
        ]
        for start in range(0, total.size, _BLOCK):
            part = total[start : start + _BLOCK]
            for cipher, sign in ciphers:
                cipher.update_into(zeros[: part.size * size], stream)
                if sign > 0:
                    np.add(part, drawn[: part.size], out=part)
                else:
                    np.subtract(part, drawn[: part.size], out=part)


def _cut(total: Words, bits: Bits) -> Words:
    return total & np.uint32(0xFFFFFF) if bits == 24 else total


def _key(secret: bytes, about: list[str]) -> bytes:
    info = b"cloister/f1/secagg/mask\0" + canonical.encode(about)
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
