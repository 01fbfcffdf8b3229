"""Who one is: a name, a key to sign with, keys to receive with; and the card that others keep of it.

A card is signed by its own signing key, so whoever has compared the words of that key has compared
the whole card. Where an identity's secret is stored is its owner's matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.security import canonical
from appliance.security.trust.words import words_of

ROLES = ("site", "release", "edge", "person")
SIGNED_CARD = b"cloister/b1/card\0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZES = {"sign": 32, "x25519": 32, "mlkem768": 1184}
_SECRETS = {"sign": 32, "x25519": 32, "mlkem768": 64}
_CARD_MOST = 8192


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """The public keys that bundles for somebody are sealed to."""

    name: str
    x25519: bytes
    mlkem768: bytes

    def public_bytes(self, kem: str) -> bytes:
        """The receiving key as bytes: X25519, or ML-KEM-768 before X25519."""
        return self.x25519 if kem == "x25519" else self.mlkem768 + self.x25519

    def public_key(self, kem: str) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
        """The receiving key for the library.

        Raises:
            ValueError: it is no key.
        """
        x25519 = X25519PublicKey.from_public_bytes(self.x25519)
        if kem == "x25519":
            return x25519
        return hpke.MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(self.mlkem768), x25519)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One's own keys. `key_epoch` rises by one whenever they are made anew."""

    name: str
    role: str
    key_epoch: int
    signing: Ed25519PrivateKey
    x25519: X25519PrivateKey
    mlkem768: MLKEM768PrivateKey

    @property
    def key(self) -> str:
        """The public signing key, in hex: who one is in a bundle."""
        return self.signing.public_key().public_bytes_raw().hex()

    @property
    def receiver(self) -> Receiver:
        """The public side of the receiving keys."""
        return Receiver(
            name=self.name,
            x25519=self.x25519.public_key().public_bytes_raw(),
            mlkem768=self.mlkem768.public_key().public_bytes_raw(),
        )

    def private_key(self, kem: str) -> X25519PrivateKey | hpke.MLKEM768X25519PrivateKey:
        """The receiving key of a KEM, for the library."""
        if kem == "x25519":
            return self.x25519
        return hpke.MLKEM768X25519PrivateKey(self.mlkem768, self.x25519)

    def sign(self, content: bytes) -> bytes:
        """64 bytes of Ed25519."""
        return self.signing.sign(content)

    def secret(self) -> bytes:
        """All of it as bytes, to be stored where nobody else reads; `identity_of` reads it."""
        return canonical.encode(
            {
                "v": 1,
                "name": self.name,
                "role": self.role,
                "key_epoch": self.key_epoch,
                "sign": self.signing.private_bytes_raw().hex(),
                "x25519": self.x25519.private_bytes_raw().hex(),
                "mlkem768": self.mlkem768.private_bytes_raw().hex(),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Card:
    """What others keep of an identity; `content` is the signed card as it travels."""

    name: str
    role: str
    key_epoch: int
    key: str
    receiver: Receiver
    content: bytes

    @property
    def words(self) -> str:
        """The eight words that two people compare."""
        return words_of(self.key)


def new_identity(name: str, role: str, *, key_epoch: int = 1) -> Identity:
    """Fresh keys.

    Raises:
        ConfigWrong: a bad name or role.
    """
    if not _NAME.fullmatch(name):
        raise ConfigWrong(
            "A site's name has 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or digit.",
            "Choose another name.",
        )
    if role not in ROLES:
        raise ConfigWrong(f"{role[:20]} is no role.", f"Choose one of: {', '.join(ROLES)}.")
    return Identity(
        name=name,
        role=role,
        key_epoch=key_epoch,
        signing=Ed25519PrivateKey.generate(),
        x25519=X25519PrivateKey.generate(),
        mlkem768=MLKEM768PrivateKey.generate(),
    )


def identity_of(secret: bytes) -> Identity:
    """The identity that `Identity.secret` gave.

    Raises:
        ConfigWrong: it is damaged.
    """
    try:
        held = canonical.decode(secret)
        _check_head(held, {"v", "name", "role", "key_epoch", *_SECRETS})
        keys = {name: _key(held[name], size) for name, size in _SECRETS.items()}
        return Identity(
            name=held["name"],
            role=held["role"],
            key_epoch=held["key_epoch"],
            signing=Ed25519PrivateKey.from_private_bytes(keys["sign"]),
            x25519=X25519PrivateKey.from_private_bytes(keys["x25519"]),
            mlkem768=MLKEM768PrivateKey.from_seed_bytes(keys["mlkem768"]),
        )
    except ValueError as problem:
        raise ConfigWrong("This site's keys are damaged.", "Restore them from a backup.") from problem


def public(identity: Identity) -> Card:
    """The card of an identity, signed by itself."""
    receiver = identity.receiver
    body = {
        "v": 1,
        "name": identity.name,
        "role": identity.role,
        "key_epoch": identity.key_epoch,
        "sign": identity.key,
        "x25519": receiver.x25519.hex(),
        "mlkem768": receiver.mlkem768.hex(),
    }
    signature = identity.sign(SIGNED_CARD + canonical.encode(body))
    return read_card(canonical.encode({**body, "signature": signature.hex()}))


def read_card(content: bytes) -> Card:
    """The card that `content` is, whose own signature holds. Whose it is, words must tell.

    Raises:
        TrustRefused: it is damaged, or not signed by the key it names.
    """
    try:
        if len(content) > _CARD_MOST:
            raise ValueError("too long")
        held = canonical.decode(content.strip())
        _check_head(held, {"v", "name", "role", "key_epoch", "signature", *_SIZES})
        keys = {name: _key(held[name], size) for name, size in _SIZES.items()}
        signature = _key(held["signature"], 64)
        body = {name: value for name, value in held.items() if name != "signature"}
        Ed25519PublicKey.from_public_bytes(keys["sign"]).verify(
            signature, SIGNED_CARD + canonical.encode(body)
        )
        MLKEM768PublicKey.from_public_bytes(keys["mlkem768"])
    except (ValueError, InvalidSignature) as problem:
        raise TrustRefused("This is no card, or it was altered.", "Ask for it again.") from problem
    return Card(
        name=held["name"],
        role=held["role"],
        key_epoch=held["key_epoch"],
        key=held["sign"],
        receiver=Receiver(name=held["name"], x25519=keys["x25519"], mlkem768=keys["mlkem768"]),
        content=content.strip(),
    )


def verify(key: str, signature: bytes, content: bytes) -> bool:
    """Whether the holder of the public key (hex) signed `content`."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_head(held: Any, keys: set[str]) -> None:
    if not isinstance(held, dict) or set(held) != keys or type(held["v"]) is not int or held["v"] != 1:
        raise ValueError("other fields")
    name, epoch = held["name"], held["key_epoch"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or held["role"] not in ROLES:
        raise ValueError("a bad name or role")
    if type(epoch) is not int or not 1 <= epoch < 1 << 31:
        raise ValueError("a bad epoch")


def _key(held: Any, size: int) -> bytes:
    if not isinstance(held, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", held):
        raise ValueError("a key is damaged")
    return bytes.fromhex(held)
