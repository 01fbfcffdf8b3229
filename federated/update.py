"""What a site sends in a round: the change of the adapter, packed, with a statement that the site signs.

    statement length, 4 bytes big-endian | statement, canonical JSON | Ed25519 signature, 64 bytes | body

The signature covers `cloister/f1/update`, a zero byte, and the statement, which holds the SHA-256 of the
body; so neither the coordinator's gateway nor a carried stick can alter, swap or reuse an update. Flower
signs only a time stamp (its message bodies can be changed on the way); the same bytes travel in a bundle.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.security import canonical
from federated.packing import Packing

Form = Packing | Literal["masked"]
MASKED: Form = "masked"
"""Of a body that is a masked vector (secagg/site.py), which says nothing without those of the others."""
PURPOSE = b"cloister/f1/update\x00"
LONGEST_STATEMENT = 4096
_HEX = re.compile(r"[0-9a-f]{64}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is said of an update.

    `federation` is the digest of the signed federation.toml and so fixes base, settings and sites; `parent`
    is the digest of the adapter that the round began with (layout.vector_sha256). `units` is how many
    patients the site trains on, `loss` what it tells of that adapter's loss on its own validation records, in
    millionths (-1: nothing); `body` is the digest of the packed change.
    """

    federation: str
    round: int
    site: str
    parent: str
    packing: Form
    units: int
    loss: int
    body: str


def sealed_update(statement: Statement, body: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The bytes that leave the site; `sign` is the site's Ed25519 key.

    Raises:
        ValueError: the statement does not say what `body` is.
    """
    if statement.body != hashlib.sha256(body).hexdigest():
        raise ValueError("the statement is of another body")
    said = canonical.encode(asdict(statement))
    return len(said).to_bytes(4, "big") + said + sign(PURPOSE + said) + body


def opened_update(content: bytes) -> tuple[Statement, memoryview, Callable[[bytes], bool]]:
    """Statement, body, and a check of the signature against a site's public key (32 bytes).

    Nothing of the statement is true before that check has been made, and the body is the statement's only
    when `whole` says so.

    Raises:
        ValueError: it is not of this form.
    """
    length = int.from_bytes(content[:4], "big")
    if not 2 <= length <= LONGEST_STATEMENT or len(content) < 4 + length + 64:
        raise ValueError("cut short, or no update")
    said = content[4 : 4 + length]
    signature = content[4 + length : 68 + length]
    statement = _statement(canonical.decode(said))

    def by(key: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, PURPOSE + said)
        except (InvalidSignature, ValueError):
            return False
        return True

    return statement, memoryview(content)[68 + length :], by


def whole(statement: Statement, body: memoryview) -> bool:
    """Whether `body` is what the statement is about."""
    return hashlib.sha256(body).hexdigest() == statement.body


def _statement(held: Any) -> Statement:
    names = {field.name for field in fields(Statement)}
    if not isinstance(held, dict) or set(held) != names:
        raise ValueError("other fields")
    for name in ("federation", "parent", "body"):
        if not isinstance(held[name], str) or not _HEX.fullmatch(held[name]):
            raise ValueError(f"{name} is no digest")
    for name in ("round", "units", "loss"):
        if type(held[name]) is not int or abs(held[name]) >= 1 << 53:
            raise ValueError(f"{name} is no number")
    if not isinstance(held["site"], str) or not _SITE.fullmatch(held["site"]):
        raise ValueError("no name of a site")
    if held["packing"] not in (*get_args(Packing), MASKED):
        raise ValueError("an unknown packing")
    return Statement(**held)
