"""How messages are spelled: canonical JSON that says what they are, then raw bytes.

    signed by a site:   length, 4 bytes big-endian | head, canonical JSON | Ed25519 signature, 64 bytes | body
    by the coordinator: length, 4 bytes big-endian | head, canonical JSON | body

The signature covers `cloister/f1/secagg/KIND`, a zero byte, and the head, which holds the SHA-256 of the
body; so a head can be handed on without its body. A parcel carries one share to one site:

    HPKE key, 32 bytes | sealed share, 48 | SHA-256 of the share, 32 | Ed25519 signature of the dealer, 64

HPKE (RFC 9180) is base mode, X25519, HKDF-SHA256, AES-256-GCM; its info, the digest and the signature all
name the kind of share, the federation, the round, the sender, the receiver and the plan or context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.security import canonical

PARCEL = 176
_SEALED, _DIGEST = 80, 112
_LONGEST_HEAD = 1 << 17
_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
Sign = Callable[[bytes], bytes]


def signed(kind: str, head: dict[str, Any], body: bytes, sign: Sign) -> bytes:
    """The message of a site; `body`'s digest is added to the head."""
    said = canonical.encode({**head, "body": hashlib.sha256(body).hexdigest()})
    return len(said).to_bytes(4, "big") + said + sign(_purpose(kind) + said) + body


def opened(kind: str, content: bytes | memoryview, key: bytes) -> tuple[dict[str, Any], bytes, memoryview]:
    """Head, the bytes of the head with its signature, and the body, all signed by `key`.

    Raises:
        ValueError: it is not of this form, or not signed so.
    """
    head, rest = opened_head(kind, memoryview(content), key)
    if head.get("body") != hashlib.sha256(rest).hexdigest():
        raise ValueError("another body")
    return head, bytes(content[: len(content) - len(rest)]), rest


def opened_head(kind: str, content: memoryview, key: bytes) -> tuple[dict[str, Any], memoryview]:
    """A signed head, and all that comes after it.

    Raises:
        ValueError: it is not of this form, or not signed so.
    """
    said, rest = _said(content)
    if not verified(key, bytes(rest[:64]), _purpose(kind) + said):
        raise ValueError("not signed by this site")
    return _mapping(said), rest[64:]


def packed(head: dict[str, Any], body: bytes) -> bytes:
    """The message of a coordinator."""
    said = canonical.encode(head)
    return len(said).to_bytes(4, "big") + said + body


def unpacked(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Head and body of a coordinator's message.

    Raises:
        ValueError: it is not of this form.
    """
    said, rest = _said(memoryview(content))
    return _mapping(said), rest


def label(what: str, federation: str, number: int, context: str, sender: str, receiver: str) -> bytes:
    """What a parcel is for; `what` is `key` or `seed`, `context` the digest of the plan or of the round."""
    return b"cloister/f1/secagg/share\0" + canonical.encode(
        [what, federation, number, context, sender, receiver]
    )


def seal_share(share: bytes, *, to: bytes, about: bytes, sign: Sign) -> bytes:
    """The parcel with `share` for the holder of the pinned key `to`."""
    sealed = _SUITE.encrypt(share, X25519PublicKey.from_public_bytes(to), about)
    body = sealed + share_digest(share, about)
    return body + sign(about + body)


def parcel_digest(parcel: bytes, *, sender: bytes, about: bytes) -> bytes:
    """`digest_in` of a parcel that its dealer signed.

    Raises:
        ValueError: the pinned key `sender` did not sign this parcel.
    """
    if len(parcel) != PARCEL or not verified(sender, parcel[_DIGEST:], about + parcel[:_DIGEST]):
        raise ValueError("not signed by this site")
    return digest_in(parcel)


def digest_in(parcel: bytes) -> bytes:
    """The digest of the share in a parcel whose signature was checked before."""
    return parcel[_SEALED:_DIGEST]


def open_share(parcel: bytes, *, key: X25519PrivateKey, sender: bytes, about: bytes) -> bytes | None:
    """The share, or None where its dealer signed a parcel without the share it names.

    Raises:
        ValueError: the pinned key `sender` did not sign this parcel.
    """
    digest = parcel_digest(parcel, sender=sender, about=about)
    try:
        share = _SUITE.decrypt(parcel[:_SEALED], key, about)
    except (InvalidTag, ValueError):
        return None
    return share if len(share) == 32 and share_digest(share, about) == digest else None


def share_digest(share: bytes, about: bytes) -> bytes:
    """SHA-256 over what the share is for and the share, which is random enough not to be guessed."""
    return hashlib.sha256(about + share).digest()


def verified(key: bytes, signature: bytes, content: bytes) -> bool:
    """Whether `key` signed `content`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _purpose(kind: str) -> bytes:
    return f"cloister/f1/secagg/{kind}\0".encode()


def _said(content: memoryview) -> tuple[bytes, memoryview]:
    length = int.from_bytes(content[:4], "big")
    if not 2 <= length <= _LONGEST_HEAD or len(content) < 4 + length:
        raise ValueError("cut short, or no message")
    return bytes(content[4 : 4 + length]), content[4 + length :]


def _mapping(said: bytes) -> dict[str, Any]:
    head = canonical.decode(said)
    if not isinstance(head, dict):
        raise ValueError("no head")
    return head
