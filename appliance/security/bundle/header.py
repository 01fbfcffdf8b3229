"""The head of a bundle file: for whom it is, and the keys that follow from its file key.

The MAC commits every receiver to one file key: without it a file could open differently for two.
The hash over header and MAC stands in the signed manifest, so no one can put a signed manifest into an
envelope of their own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.security import canonical
from appliance.security.bundle import wrap
from appliance.security.bundle.format import (
    HEADER_MOST,
    INFO_HEADER,
    INFO_PAYLOAD,
    RECIPIENTS_MOST,
    SUITES,
    VERSION,
    WRAPPED,
)
from appliance.security.bundle.refusals import refused
from appliance.security.trust.identity import Identity, Receiver

_KID = re.compile(r"[0-9a-f]{16}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True, kw_only=True)
class Recipient:
    """One receiver's copy of the file key."""

    kid: str
    encapsulated: bytes
    sealed: bytes


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands in front, as bytes and as read."""

    content: bytes
    suite: str
    recipients: tuple[Recipient, ...]

    @property
    def kem(self) -> str:
        """How the file key is sealed."""
        return self.suite.partition("+")[0]

    @property
    def aead(self) -> str:
        """How the chunks are sealed."""
        return self.suite.partition("+")[2]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What follows from header and file key."""

    mac: bytes
    hash: bytes
    payload: bytes


def make(file_key: bytes, receivers: Sequence[Receiver], suite: str) -> Header:
    """The header that gives `file_key` to each of `receivers`."""
    kem = suite.partition("+")[0]
    told = []
    for receiver in receivers:
        encapsulated, sealed = wrap.wrap(file_key, receiver, kem)
        told.append({"kid": wrap.kid(receiver, kem), "enc": encapsulated.hex(), "wrapped": sealed.hex()})
    content = canonical.encode({"v": VERSION, "suite": suite, "recipients": told})
    return read(content)


def read(content: bytes) -> Header:
    """The header that `content` spells.

    Raises:
        BundleRefused: `damaged-header` or `newer-format`.
    """
    try:
        held = canonical.decode(content)
    except ValueError:
        raise refused("damaged-header") from None
    if isinstance(held, dict) and type(held.get("v")) is int and held["v"] > VERSION:
        raise refused("newer-format")
    if len(content) > HEADER_MOST or not isinstance(held, dict) or set(held) != {"v", "suite", "recipients"}:
        raise refused("damaged-header")
    if type(held["v"]) is not int or held["v"] != VERSION or held["suite"] not in SUITES:
        raise refused("damaged-header")
    listed = held["recipients"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= RECIPIENTS_MOST:
        raise refused("damaged-header")
    kem = str(held["suite"]).partition("+")[0]
    recipients = tuple(_recipient(one, WRAPPED[kem]) for one in listed)
    if len({one.kid for one in recipients}) != len(recipients):
        raise refused("damaged-header")
    return Header(content=content, suite=held["suite"], recipients=recipients)


def open_key(header: Header, identity: Identity) -> bytes:
    """The file key, from the copy that is sealed for `identity`.

    Raises:
        BundleRefused: `other-recipient`; `altered` where the copy does not open.
    """
    mine = wrap.kid(identity.receiver, header.kem)
    for one in header.recipients:
        if one.kid == mine:
            key = wrap.unwrap(one.encapsulated, one.sealed, identity, header.kem)
            if key is None or len(key) != 32:
                raise refused("altered")
            return key
    raise refused("other-recipient")


def keys(header: Header, file_key: bytes) -> Keys:
    """The MAC of a header, the hash over both, and the key of the chunks."""
    mac = hmac.digest(_derived(file_key, b"", INFO_HEADER), header.content, "sha256")
    digest = hashlib.sha256(header.content + mac).digest()
    return Keys(mac=mac, hash=digest, payload=_derived(file_key, digest, INFO_PAYLOAD))


def _derived(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _recipient(held: object, sizes: tuple[int, int]) -> Recipient:
    if not isinstance(held, dict) or set(held) != {"kid", "enc", "wrapped"}:
        raise refused("damaged-header")
    if not all(isinstance(value, str) for value in held.values()) or not _KID.fullmatch(held["kid"]):
        raise refused("damaged-header")
    if not _HEX.fullmatch(held["enc"]) or not _HEX.fullmatch(held["wrapped"]):
        raise refused("damaged-header")
    encapsulated, sealed = bytes.fromhex(held["enc"]), bytes.fromhex(held["wrapped"])
    if (len(encapsulated), len(sealed)) != sizes:
        raise refused("damaged-header")
    return Recipient(kid=held["kid"], encapsulated=encapsulated, sealed=sealed)
