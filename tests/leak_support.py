"""Looks for canaries in every byte of folders, in any of the forms in which software writes text.

A canary is HEAD, a number of four digits and TAIL: a made-up word that is nowhere else, part of it not ASCII.
Either half of it counts as found. Members of gzip, zlib, zip, bzip2 and xz are looked into wherever in a file
they begin, three deep.
"""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import os
import stat
import unicodedata
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD, TAIL = "Vexölquimar", "brastinwoyed"
_DEEPEST = 3
_MOST = 64 << 20  # bytes of one member that are looked at


def canary(number: int) -> str:
    """The word of this number."""
    return f"{HEAD}{number:04d}{TAIL}"


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Where a canary stands, and in which form; `path` goes on with `!` inside of packed members."""

    path: str
    form: str


def forms(tokens: Iterable[Iterable[int]] = ()) -> dict[str, list[bytes]]:
    """The bytes to look for, by name. `tokens`: what a tokenizer makes of a canary's inner part."""
    found: dict[str, list[bytes]] = {}

    def add(name: str, *marks: bytes) -> None:
        known = {mark for each in found.values() for mark in each}
        found.setdefault(name, []).extend(sorted({*marks} - known))

    for half in (HEAD, TAIL):
        folded = unicodedata.normalize("NFD", half).encode("ascii", "ignore").decode()
        plain = half.encode()
        add("utf-8", *(word.encode() for word in (half, half.lower(), half.upper(), folded, folded.lower())))
        add("utf-8", unicodedata.normalize("NFD", half).encode(), folded.upper().encode())
        add("latin-1", half.encode("latin-1"))
        add("utf-16-le", half.encode("utf-16-le"))
        add("utf-16-be", half.encode("utf-16-be"))
        add("hex", plain.hex().encode(), plain.hex().upper().encode())
        add("json", json.dumps(half)[1:-1].encode(), json.dumps(json.dumps(half))[3:-3].encode())
        add("url", urllib.parse.quote(half).encode(), urllib.parse.quote(half).lower().encode())
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            for shift in range(3):  # the first and last group depend on what stands beside it
                add("base64", alphabet(bytes(shift) + plain + bytes(3))[4:-8])
    for numbers in tokens:
        ids = list(numbers)
        for width in (2, 4, 8):
            add("tokens", b"".join(each.to_bytes(width, "little") for each in ids))
        add("tokens", json.dumps(ids)[1:-1].encode(), json.dumps(ids, separators=(",", ":"))[1:-1].encode())
    return found


def scan(places: Iterable[Path], marks: dict[str, list[bytes]]) -> list[Leak]:
    """Every file below `places`, its name, and where a link leads to, with a canary in it."""
    found: list[Leak] = []
    for path in _all(places):
        found += [Leak(path=str(path), form=f"name, {form}") for form in look(os.fsencode(path), marks)]
        try:
            held = path.lstat()
            if stat.S_ISLNK(held.st_mode):
                found += [
                    Leak(path=str(path), form=form) for form in look(os.fsencode(path.readlink()), marks)
                ]
            if stat.S_ISREG(held.st_mode):
                found += inside(str(path), path.read_bytes(), marks)
        except FileNotFoundError:  # a socket's or a running process's, gone meanwhile
            continue
    return found


def inside(path: str, content: bytes, marks: dict[str, list[bytes]], deep: int = 0) -> list[Leak]:
    """What stands in `content` and in what is packed in it."""
    found = [Leak(path=path, form=form) for form in look(content, marks)]
    if deep < _DEEPEST:
        for name, member in _members(content):
            found += inside(f"{path}!{name}", member, marks, deep + 1)
    return found


def look(content: bytes, marks: dict[str, list[bytes]]) -> list[str]:
    """The forms of which something stands in `content`."""
    return [form for form, each in marks.items() if any(mark in content for mark in each)]


def _all(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield from [place] if place.is_file() else place.rglob("*")


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    for kind, beginning, skip, opened in _PACKED:
        at = content.find(beginning)
        while at >= 0:
            start = at + skip(content, at)
            if member := _unpacked(opened, content, start):
                yield f"{kind}@{at}", member
            at = content.find(beginning, at + 1)


def _unpacked(opened: Callable[[], Callable[[bytes, int], bytes]], content: bytes, start: int) -> bytes:
    """As much as can be unpacked, also of a member that is cut."""
    found, step, unpack = bytearray(), 256, opened()
    while start < len(content) and len(found) < _MOST:
        try:
            found += unpack(content[start : start + step], _MOST)
        except Exception:  # whatever a library says of what is not packed, or ends here
            break
        start, step = start + step, min(step * 4, 1 << 20)
    return bytes(found)


def _zip_data(content: bytes, at: int) -> int:
    """Bytes from a member's local header to its data (APPNOTE.TXT, 4.3.7)."""
    name, extra = (int.from_bytes(content[at + place : at + place + 2], "little") for place in (26, 28))
    return 30 + name + extra


def _none(content: bytes, at: int) -> int:
    return 0


_PACKED: list[tuple[str, bytes, Callable[[bytes, int], int], Callable[[], Callable[[bytes, int], bytes]]]] = [
    ("gzip", b"\x1f\x8b\x08", _none, lambda: zlib.decompressobj(31).decompress),
    ("zip", b"PK\x03\x04", _zip_data, lambda: zlib.decompressobj(-15).decompress),
    ("bzip2", b"BZh", _none, lambda: bz2.BZ2Decompressor().decompress),
    ("xz", b"\xfd7zXZ\x00", _none, lambda: lzma.LZMADecompressor().decompress),
    *(
        ("zlib", bytes([0x78, level]), _none, lambda: zlib.decompressobj().decompress)
        for level in (0x01, 0x5E, 0x9C, 0xDA)
    ),
]
