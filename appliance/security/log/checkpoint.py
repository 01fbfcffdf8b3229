"""Checkpoints: a signed line about the whole log, small enough for a stick, a bundle, or paper.

The form is C2SP tlog-checkpoint v1 in a C2SP signed-note v1 with Ed25519 (signature type 1):

    cloister/st-anna                                origin: whose log, and the name of its key
    48211                                           entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root of RFC 6962 over them
    time 2026-11-25T10:15:00Z                       extension line: when

    — cloister/st-anna Az3grlgt...                  base64 of the key's 4-byte id and 64-byte signature

Strict: one way to write each value, nothing beside it; at most 16 KiB and 16 signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.core.errors import ConfigWrong, DataRejected

LARGEST_NOTE = 16 << 10
_MOST_SIGNATURES = 16
_NAME = re.compile(r"cloister/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_TIME = re.compile(r"time ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)")
_FORM = "%Y-%m-%dT%H:%M:%SZ"


class LogKey(Protocol):
    """What signs for a log: a key in this process, in an agent, or in hardware."""

    @property
    def name(self) -> str:
        """The origin of the log, as cloister/SITE."""

    @property
    def public(self) -> bytes:
        """The raw Ed25519 public key."""

    def sign(self, text: bytes) -> bytes:
        """The Ed25519 signature of `text`."""


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A LogKey that lies in this process. `name`: cloister/SITE (A-Z a-z 0-9 . _ -)."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The raw public key."""
        return self.key.public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """The signature of `text`."""
        return self.key.sign(text)


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Whose signature counts: the log's origin and its raw Ed25519 public key."""

    name: str
    public: bytes


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A log as somebody signed it: `size` entries under `root`, at `time` (UTC). `note`: the whole file."""

    origin: str
    size: int
    root: bytes
    time: datetime
    note: bytes

    @property
    def text(self) -> bytes:
        """What is signed."""
        return self.note[: self.note.rindex(b"\n\n") + 1]


def verifier(key: LogKey) -> Verifier:
    """What checks the signatures of `key`."""
    return Verifier(name=key.name, public=key.public)


def sign(key: LogKey, size: int, root: bytes, time: datetime) -> Checkpoint:
    """The signed checkpoint of a log; `time` counts in whole seconds.

    Raises:
        ConfigWrong: the key's name is no origin.
    """
    if not _NAME.fullmatch(key.name):
        raise ConfigWrong(
            "A log is signed under cloister/SITE.", "SITE takes letters, digits, dot, dash and underscore."
        )
    at = time.astimezone(UTC).replace(microsecond=0)
    text = f"{key.name}\n{size}\n{_encode(root)}\ntime {at.strftime(_FORM)}\n".encode()
    signature = _encode(key_id(key.name, key.public) + key.sign(text))
    note = text + f"\n— {key.name} {signature}\n".encode()
    return Checkpoint(origin=key.name, size=size, root=root, time=at, note=note)


def read(note: bytes, keys: Sequence[Verifier]) -> Checkpoint:
    """A checkpoint that one of `keys` signed for the log of its name; signatures of others are passed over.

    Raises:
        DataRejected: malformed, signed by nobody known, or a known key's signature is wrong.
    """
    text, signatures = _parts(note)
    origin = text.partition(b"\n")[0].decode()
    signed = False
    for name, key, signature in signatures:
        known = next((k for k in keys if k.name == name and key_id(k.name, k.public) == key), None)
        if known is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(known.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            raise DataRejected(
                f"The signature of {name} on the checkpoint is wrong: it was altered.", "Take another copy."
            ) from None
        signed = signed or name == origin
    if not signed:
        raise DataRejected(
            "The checkpoint is not signed by a key that is known here for its log.",
            "Name the key that it should be signed with.",
        )
    return _checkpoint(text, note)


def origin_of(note: bytes) -> str:
    """Whose log a checkpoint says it is of. Nothing is verified.

    Raises:
        DataRejected: malformed.
    """
    text, _ = _parts(note)
    return _checkpoint(text, note).origin


def fingerprint(found: Checkpoint, words: Callable[[bytes], str] | None = None) -> str:
    """The signed text in short, to read out or compare: `words` of its SHA-256, else 16 hex digits."""
    digest = hashlib.sha256(found.text).digest()
    return words(digest) if words else digest.hex()[:16]


def key_id(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name || 0x0A || 0x01 || public key): C2SP signed-note."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def _parts(note: bytes) -> tuple[bytes, list[tuple[str, bytes, bytes]]]:
    """The signed text and its signatures, each as name, key id and signature."""
    if len(note) > LARGEST_NOTE:
        raise _malformed("it is longer than 16 KiB")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in whole):
        raise _malformed("it has control characters")
    text, gap, rest = whole.rpartition("\n\n")
    if not gap or not rest.endswith("\n"):
        raise _malformed("it has no signature")
    lines = rest[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise _malformed("it has more than 16 signatures")
    return (text + "\n").encode(), [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    mark, _, rest = line.partition(" ")
    name, _, code = rest.partition(" ")
    if mark != "—" or not name or "+" in name or any(c.isspace() for c in name):
        raise _malformed("a signature line is not as it must be")
    found = _decode(code)
    if len(found) <= 4:
        raise _malformed("a signature is too short")
    return name, found[:4], found[4:]


def _checkpoint(text: bytes, note: bytes) -> Checkpoint:
    lines = text.decode()[:-1].split("\n")
    if len(lines) != 4 or not _NAME.fullmatch(lines[0]) or not _SIZE.fullmatch(lines[1]):
        raise _malformed("it is not origin, size, root and time")
    root, moment = _decode(lines[2]), _TIME.fullmatch(lines[3])
    if len(root) != 32 or moment is None:
        raise _malformed("its root or its time is not as it must be")
    try:
        time = datetime.strptime(moment[1], _FORM).replace(tzinfo=UTC)
    except ValueError:
        raise _malformed("it has no such time") from None
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root, time=time, note=note)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(code: str) -> bytes:
    """Base64, which has spare bits in its last character: they must be zero."""
    try:
        found = base64.b64decode(code.encode(), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("it has wrong base64") from None
    if _encode(found) != code:
        raise _malformed("it has wrong base64")
    return found


def _malformed(why: str) -> DataRejected:
    return DataRejected(f"This is no checkpoint: {why}.", "Take another copy of the file.")
