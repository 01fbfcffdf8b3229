"""Writes a bundle: files whose hashes are known, sealed for receivers, signed by one's own key.

What is written is hashed again on its way and must be what was measured, so what people approved is
what leaves. A crash leaves no file under the name asked for, or the whole bundle.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Protocol, cast

from appliance.core.errors import NotFound
from appliance.core.files import need_room, replacing
from appliance.core.reading import open_reading, size_of
from appliance.core.sealing import place
from appliance.security.bundle import header as headers
from appliance.security.bundle import manifest as manifests
from appliance.security.bundle.format import (
    AEADS,
    CHUNK,
    HEAD,
    HEADER_MOST,
    MAGIC,
    SIGNED_MANIFEST,
    payload_size,
)
from appliance.security.bundle.manifest import Entry, Facts, Manifest
from appliance.security.bundle.refusals import refused
from appliance.security.bundle.stream import Sealer, cipher
from appliance.security.trust.identity import Identity, Receiver


class Readable(Protocol):
    """A file that fills buffers, without a buffer of its own."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Put bytes into `buffer` and say how many; 0 at the end."""


_AHEAD = 16 << 20  # bytes; a disk that begins with them leaves little for the fsync at the end

Opening = Callable[[], AbstractContextManager[Readable]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file to be carried: what the manifest says of it, and how to open it (sealed files: unsealed)."""

    entry: Entry
    open: Opening


@dataclass(frozen=True, kw_only=True)
class Written:
    """A bundle that lies there."""

    path: Path
    digest: str
    manifest: Manifest
    size: int


def file_source(path: Path, name: str, what: str, *, sha256: str | None = None) -> Source:
    """A file under `name` in the bundle, its plain content; it is hashed now unless its hash is known.

    Raises:
        BundleRefused: a link, a file with a second name, a pipe, a folder. NotFound: nothing there.
    """

    sealed = place(path) is not None

    def opened() -> AbstractContextManager[Readable]:
        return cast("AbstractContextManager[Readable]", open_reading(path) if sealed else _plain(path))

    with _plain(path) as held:  # sealed or not: no link, no pipe
        size = size_of(path) if sealed else os.fstat(held.fileno()).st_size
    with opened() as content:
        digest = sha256 or measured(content)
    return Source(entry=Entry(path=name, what=what, size=size, sha256=digest), open=opened)


def bytes_source(content: bytes, name: str, what: str) -> Source:
    """Bytes that are at hand, as a file of the bundle."""
    digest = hashlib.sha256(content).hexdigest()
    return Source(
        entry=Entry(path=name, what=what, size=len(content), sha256=digest), open=lambda: BytesIO(content)
    )


def measured(content: Readable) -> str:
    """SHA-256 of what is left of a file, in hex."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    while count := content.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def default_suite(kem: str) -> str:
    """`kem` with AES, or with ChaCha20 where this machine's processor has no AES."""
    return f"{kem}+{AEADS[0] if _has_aes() else AEADS[1]}"


def write(
    out: Path,
    sources: Sequence[Source],
    facts: Facts,
    *,
    identity: Identity,
    receivers: Sequence[Receiver],
    suite: str,
    line: str,
    seq: int,
    created: int,
    expires: int,
    before_named: Callable[[Written], None] = lambda written: None,
) -> Written:
    """Write the bundle `out`, replacing what lies there.

    `before_named` is called when all of it is on the disk, under no name yet; if it raises, nothing is left.

    Raises:
        BundleRefused: `changed`, when a file is not what its source says, and what `manifest.encode` refuses.
        NoRoom: the disk is full.
    """
    file_key = os.urandom(32)
    header = headers.make(file_key, receivers, suite)
    keys = headers.keys(header, file_key)
    manifest = Manifest(
        hdr_sha256=keys.hash.hex(),
        line=line,
        seq=seq,
        key_epoch=identity.key_epoch,
        created=created,
        expires=expires,
        facts=facts,
        files=tuple(source.entry for source in sources),
    )
    content = manifests.encode(manifest)
    need_room(out.parent, HEADER_MOST + payload_size(HEAD + len(content) + manifest.size))
    head = bytes.fromhex(identity.key) + identity.sign(SIGNED_MANIFEST + content)
    with replacing(out) as draft:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            writing = _into(handle)
            front = (MAGIC, len(header.content).to_bytes(4, "big"), header.content, keys.mac)
            writing(memoryview(b"".join(front)))
            with Sealer(cipher(header.aead, keys.payload), writing) as sealer:
                sealer.write(head + len(content).to_bytes(4, "big") + content)
                for source in sources:
                    _carry(source, sealer)
                sealer.finish()
            # By the handle that wrote: a full or broken disk is told of before anything is used up.
            os.fsync(handle)
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        written = Written(path=out, digest=hashlib.sha256(content).hexdigest(), manifest=manifest, size=size)
        before_named(written)
    return written


def _carry(source: Source, sealer: Sealer) -> None:
    entry, digest = source.entry, hashlib.sha256()
    left = entry.size
    with source.open() as content:
        while left:
            room = sealer.room()[:left]
            count = content.readinto(room)
            if not count:
                raise refused("changed", path=entry.path)
            sealer.put(count, digest)
            left -= count
        sealer.settle()
        grown = content.readinto(memoryview(bytearray(1)))
    if grown or digest.hexdigest() != entry.sha256:
        raise refused("changed", path=entry.path)


def _into(handle: int) -> Callable[[memoryview], None]:
    """What writes to a file all that it is given; the disk takes it meanwhile, not only at the fsync."""
    at = begun = 0

    def whole(content: memoryview) -> None:
        nonlocal at, begun
        while content:
            count = os.write(handle, content)
            content, at = content[count:], at + count
        if at - begun >= _AHEAD:
            os.posix_fadvise(handle, begun, at - begun, os.POSIX_FADV_DONTNEED)
            begun = at

    return whole


@contextmanager
def _plain(path: Path) -> Iterator[FileIO]:
    """The file itself: a link or second name could be turned to another file, a pipe never ends."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as problem:
        raise NotFound(f"There is no file {path.name}.", "See `cloister model list`.") from problem
    except OSError as problem:
        raise refused("no-plain-file", path=path.name) from problem
    with FileIO(handle, "rb") as content:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise refused("no-plain-file", path=path.name)
        yield content


def _has_aes() -> bool:
    try:
        words = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return " aes" in words
