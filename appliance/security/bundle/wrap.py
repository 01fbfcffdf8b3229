"""Seals a bundle's file key for one receiver: HPKE (RFC 9180), base mode, single shot.

KEM X25519 (HKDF-SHA256) or MLKEM768-X25519 (draft-ietf-hpke-pq), KDF HKDF-SHA256, AEAD AES-256-GCM,
info `cloister/b1/wrap`, no AAD.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from appliance.core.errors import TrustRefused
from appliance.security.bundle.format import INFO_WRAP, WRAPPED
from appliance.security.trust.identity import Identity, Receiver


def kid(receiver: Receiver, kem: str) -> str:
    """The first 16 hex digits of SHA-256 over the receiving public key."""
    return hashlib.sha256(receiver.public_bytes(kem)).hexdigest()[:16]


def wrap(file_key: bytes, receiver: Receiver, kem: str) -> tuple[bytes, bytes]:
    """The encapsulated key and the sealed file key.

    Raises:
        TrustRefused: the receiver's key is no key of this kind.
    """
    try:
        sealed = _suite(kem).encrypt(file_key, receiver.public_key(kem), INFO_WRAP)
    except ValueError as problem:
        raise TrustRefused("The receiver's key is not usable.", "Ask for its card again.") from problem
    size = WRAPPED[kem][0]
    return sealed[:size], sealed[size:]


def unwrap(encapsulated: bytes, sealed: bytes, identity: Identity, kem: str) -> bytes | None:
    """The file key, or None where this is not sealed for `identity` under this format."""
    try:
        return _suite(kem).decrypt(encapsulated + sealed, identity.private_key(kem), INFO_WRAP)
    except (InvalidTag, ValueError):
        return None


def _suite(kem: str) -> hpke.Suite:
    kind = hpke.KEM.X25519 if kem == "x25519" else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(kind, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
