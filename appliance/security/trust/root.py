"""The root document, `trust.json`: who may sign what, signed by offline keys (TUF's ideas, not TUF).

Two of its three root keys, kept apart and offline, sign each version. Versions go up by exactly one; a
new one is signed by enough keys of the old document and of itself, so root keys can be replaced but
not taken over. It expires, so an old copy cannot be shown for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import TrustRefused
from appliance.security import canonical
from appliance.security.bundle.format import KINDS
from appliance.security.trust.identity import ROLES, Card, Receiver, read_card, verify
from appliance.security.trust.trust import MAY_SIGN, Signer

SIGNED_ROOT = b"cloister/b1/trust\0"
LEAST = 2
"""Root keys that must agree, at least."""

_MOST, _KEYS_MOST, _LISTED_MOST = 1 << 20, 9, 500
_KEY = re.compile(r"[0-9a-f]{64}")
_BODY = {"v", "version", "created", "expires", "threshold", "roots", "signers", "revoked"}
_AGAIN = "Ask whoever keeps the root keys for the document again."


@dataclass(frozen=True, kw_only=True)
class Root:
    """One version. `signers` are cards with the kinds they may sign; every card may receive, too."""

    version: int
    created: int
    expires: int
    threshold: int
    roots: tuple[str, ...]
    cards: tuple[Card, ...]
    kinds: tuple[frozenset[str], ...]
    revoked: frozenset[str]
    signatures: Mapping[str, bytes]
    signed: bytes
    content: bytes

    @property
    def signers(self) -> tuple[Signer, ...]:
        """What the document vouches for."""
        return tuple(
            Signer(
                name=card.name,
                role=card.role,
                key=card.key,
                kinds=kinds,
                key_epoch=card.key_epoch,
                until=self.expires,
                vouched=f"root, version {self.version}",
            )
            for card, kinds in zip(self.cards, self.kinds, strict=True)
        )

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """Whom bundles can be sealed for."""
        return tuple(card.receiver for card in self.cards)

    def signed_by(self, roots: Iterable[str]) -> int:
        """How many of these root keys signed it."""
        return sum(
            verify(key, self.signatures[key], SIGNED_ROOT + self.signed)
            for key in set(roots)
            if key in self.signatures
        )


def draft(
    *,
    version: int,
    created: int,
    expires: int,
    roots: Sequence[str],
    threshold: int = LEAST,
    signers: Sequence[tuple[Card, Sequence[str] | None]] = (),
    revoked: Iterable[str] = (),
) -> bytes:
    """An unsigned document, to be carried to the root keys. Kinds None: what the card's role may sign."""
    body = {
        "v": 1,
        "version": version,
        "created": created,
        "expires": expires,
        "threshold": threshold,
        "roots": sorted(roots),
        "signers": [
            {
                "card": canonical.decode(card.content),
                "kinds": sorted(MAY_SIGN[card.role] if kinds is None else kinds),
            }
            for card, kinds in signers
        ],
        "revoked": sorted(set(revoked)),
    }
    return read_root(canonical.encode({"signed": body, "signatures": []})).content


def sign(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """The document with one more signature; signing again changes nothing.

    Raises:
        TrustRefused: the document is damaged.
    """
    root = read_root(content)
    public = key.public_key().public_bytes_raw().hex()
    signatures = dict(root.signatures) | {public: key.sign(SIGNED_ROOT + root.signed)}
    listed = [{"key": name, "signature": value.hex()} for name, value in sorted(signatures.items())]
    return canonical.encode({"signed": canonical.decode(root.signed), "signatures": listed})


def read_root(content: bytes) -> Root:
    """The document that `content` spells; who signed it is not judged.

    Raises:
        TrustRefused: it is damaged.
    """
    try:
        if len(content) > _MOST:
            raise ValueError("too long")
        held = canonical.decode(content.strip())
        if not isinstance(held, dict) or set(held) != {"signed", "signatures"}:
            raise ValueError("other fields")
        return _root(held["signed"], _signatures(held["signatures"]), content.strip())
    except ValueError as problem:
        raise TrustRefused("This is no trust document, or it was altered.", _AGAIN) from problem


def check_next(old: Root | None, new: Root) -> None:
    """Check that `new` may take the place of `old` (None: it is the first, whose words people compared).

    Raises:
        TrustRefused: too few signatures, a version that is not the next, or an epoch that goes back.
    """
    if new.signed_by(new.roots) < new.threshold:
        raise TrustRefused(f"The document has fewer than {new.threshold} of its own signatures.", _AGAIN)
    if old is None:
        return
    if new.version != old.version + 1:
        raise TrustRefused(
            f"The document is version {new.version}; this site has {old.version} and takes"
            f" {old.version + 1} next.",
            "Take the versions in their order; each is kept by whoever keeps the root keys.",
        )
    if new.signed_by(old.roots) < old.threshold:
        raise TrustRefused(
            f"The document has fewer than {old.threshold} signatures of the root keys known here.", _AGAIN
        )
    epochs = {card.name: card.key_epoch for card in old.cards}
    for card in new.cards:
        if card.key_epoch < epochs.get(card.name, 1):
            raise TrustRefused(f"The document takes {card.name} back to an older key epoch.", _AGAIN)
    if not old.revoked <= new.revoked:
        raise TrustRefused("The document forgets a key that was revoked.", _AGAIN)


def _root(body: Any, signatures: dict[str, bytes], content: bytes) -> Root:
    if not isinstance(body, dict) or set(body) != _BODY or type(body["v"]) is not int or body["v"] != 1:
        raise ValueError("other fields")
    version, created, expires, threshold = (
        _whole(body[name]) for name in ("version", "created", "expires", "threshold")
    )
    roots, revoked = _keys(body["roots"]), _keys(body["revoked"])
    if not LEAST <= threshold <= len(roots) <= _KEYS_MOST or len(roots) <= LEAST:
        raise ValueError("a threshold that is no two of three")
    if version < 1 or expires <= created:
        raise ValueError("a version or time")
    listed = body["signers"]
    if not isinstance(listed, list) or len(listed) > _LISTED_MOST:
        raise ValueError("the signers")
    read = [_signer(one) for one in listed]
    cards = tuple(card for card, _ in read)
    if len({card.name for card in cards}) != len(cards) or len({card.key for card in cards}) != len(cards):
        raise ValueError("a signer twice")
    return Root(
        version=version,
        created=created,
        expires=expires,
        threshold=threshold,
        roots=roots,
        cards=cards,
        kinds=tuple(kinds for _, kinds in read),
        revoked=frozenset(revoked),
        signatures=signatures,
        signed=canonical.encode(body),
        content=content,
    )


def _signer(held: Any) -> tuple[Card, frozenset[str]]:
    if not isinstance(held, dict) or set(held) != {"card", "kinds"}:
        raise ValueError("a signer")
    kinds = held["kinds"]
    if not isinstance(kinds, list) or not all(isinstance(kind, str) and kind in KINDS for kind in kinds):
        raise ValueError("a kind")
    try:
        card = read_card(canonical.encode(held["card"]))
    except TrustRefused as problem:
        raise ValueError("a card") from problem
    if card.role not in ROLES:
        raise ValueError("a role")
    return card, frozenset(kinds)


def _signatures(held: Any) -> dict[str, bytes]:
    if not isinstance(held, list) or len(held) > 2 * _KEYS_MOST:
        raise ValueError("the signatures")
    found = {}
    for one in held:
        if not isinstance(one, dict) or set(one) != {"key", "signature"}:
            raise ValueError("a signature")
        if not isinstance(one["signature"], str) or not re.fullmatch("[0-9a-f]{128}", one["signature"]):
            raise ValueError("a signature")
        found[_keys([one["key"]])[0]] = bytes.fromhex(one["signature"])
    if len(found) != len(held):
        raise ValueError("a signature twice")
    return found


def _keys(held: Any) -> tuple[str, ...]:
    if not isinstance(held, list) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in held):
        raise ValueError("keys")
    if len(set(held)) != len(held):
        raise ValueError("a key twice")
    return tuple(held)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError("a number")
    return value
