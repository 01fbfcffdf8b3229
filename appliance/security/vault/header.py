"""The first 4,096 bytes of a sealed file (docs/sealed-format.md): magic, then two places for a header.

There are two so that a change of keys writes the new header beside the old one, never over it: whatever
moment the power goes, one of the two is whole. A header is canonical JSON with its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Any

from appliance.core.vaulted import MAGIC
from appliance.security import canonical
from appliance.security.vault.keys import KEY, unwrap, wrap

CHUNK = 1 << 20
LENGTH = 4096
PLACES = (16, 2056)  # offsets of the two headers
ROOM = 2040  # bytes of one: u16 length, 32 bytes SHA-256, the JSON, zeros
_LARGEST = 1 << 50
_FIELDS = {"v", "epoch", "file", "size", "store", "key"}


@dataclass(frozen=True, kw_only=True)
class Header:
    """`file` is random and names the file; `size` is the plain content's; `key` the wrapped file key."""

    epoch: int
    file: str
    size: int
    store: str
    key: str

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {
            "v": 1,
            "epoch": self.epoch,
            "file": self.file,
            "size": self.size,
            "store": self.store,
            "key": self.key,
        }


def bound(header: Header, vault: str, name: str) -> dict[str, Any]:
    """All that the wrapped key is bound to: the header, the vault, and where the file lies in the home."""
    return {**header.to_json(), "key": "", "vault": vault, "name": name}


def new_header(*, epoch: int, size: int, store: str) -> Header:
    """A header whose key is not wrapped yet."""
    return Header(epoch=epoch, file=os.urandom(16).hex(), size=size, store=store, key="")


def with_key(header: Header, store_key: bytes, file_key: bytes, *, vault: str, name: str) -> Header:
    """The header that carries `file_key` under `store_key`."""
    held = Header(**{**header.__dict__, "key": ""})
    return Header(**{**held.__dict__, "key": wrap(store_key, file_key, bound(held, vault, name))})


def file_key(header: Header, store_key: bytes, *, vault: str, name: str) -> bytes:
    """The file key.

    Raises:
        ValueError: the header was altered, the file moved, or the store key is another.
    """
    found = unwrap(store_key, header.key, bound(header, vault, name))
    if len(found) != KEY:
        raise ValueError("a file key has the wrong length")
    return found


def encode(header: Header) -> bytes:
    """The ROOM bytes of one place."""
    content = canonical.encode(header.to_json())
    whole = struct.pack(">H", len(content)) + hashlib.sha256(content).digest() + content
    if len(whole) > ROOM:
        raise ValueError("the header is too long")
    return whole.ljust(ROOM, b"\0")


def decode(content: bytes) -> Header | None:
    """The header in one place; None where there is none, or half of one."""
    (length,) = struct.unpack(">H", content[:2])
    if not length or length > ROOM - 34:
        return None
    text = content[34 : 34 + length]
    if hashlib.sha256(text).digest() != content[2:34] or content[34 + length :].strip(b"\0"):
        return None
    try:
        held = canonical.decode(text)
    except (ValueError, UnicodeDecodeError):
        return None
    if not isinstance(held, dict) or set(held) != _FIELDS or held.pop("v") != 1:
        return None
    if type(held["epoch"]) is not int or type(held["size"]) is not int or not 0 <= held["size"] <= _LARGEST:
        return None
    if not all(isinstance(held[key], str) for key in ("file", "store", "key")):
        return None
    return Header(**held)


def read_headers(content: bytes) -> tuple[Header | None, Header | None]:
    """What the two places of a file's first LENGTH bytes hold.

    Raises:
        ValueError: this is no sealed file.
    """
    if len(content) != LENGTH or content[: len(MAGIC)] != MAGIC:
        raise ValueError("this is no sealed file")
    first, second = (decode(content[at : at + ROOM]) for at in PLACES)
    return first, second


def fresh(header: Header) -> bytes:
    """The first LENGTH bytes of a new file."""
    return MAGIC.ljust(PLACES[0], b"\0") + encode(header).ljust(LENGTH - PLACES[0], b"\0")
