"""Reads a bundle: nothing of it is parsed before its signature held, nothing used before its hash did.

The order is that of docs/bundle-format.md: header and MAC, signer, signature, manifest, envelope, kind,
epoch, time, number, then the files, each against its SHA-256, then the end. Memory does not grow
with size.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.security.bundle import header as headers
from appliance.security.bundle import manifest as manifests
from appliance.security.bundle.format import (
    HEAD,
    HEADER_MOST,
    MAC_SIZE,
    MAGIC,
    MAGIC_FAMILY,
    MANIFEST_MOST,
    SIGNED_MANIFEST,
    payload_size,
)
from appliance.security.bundle.manifest import Entry, Manifest
from appliance.security.bundle.refusals import refused
from appliance.security.bundle.stream import Opener, cipher
from appliance.security.trust.identity import Identity
from appliance.security.trust.identity import verify as signature_holds
from appliance.security.trust.trust import AHEAD, Signer, Trust
from appliance.security.trust.words import words_of

Take = Callable[[memoryview], None]
Sink = Callable[[Entry], AbstractContextManager[Take]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A manifest whose signature held. `digest` is SHA-256 of its bytes: the bundle's name among others.

    `signer` is None where nobody was asked about trust; `key` is who signed. `signed` are the bytes
    from signer to manifest, which can be verified again without the envelope.
    """

    manifest: Manifest
    digest: str
    key: str
    signer: Signer | None
    suite: str
    recipients: int
    signed: bytes

    @property
    def words(self) -> str:
        """The eight words of the key that signed."""
        return words_of(self.key)


class Reader:
    """One bundle file, opened up to its manifest; `files` reads the rest."""

    def __init__(
        self, path: Path, identity: Identity, trust: Trust | None, *, kinds: Collection[str] | None = None
    ) -> None:
        """Open and judge. `trust` None: whoever signed, and whenever. `kinds`: those that are wanted.

        Raises:
            BundleRefused: with the exact reason.
        """
        with ExitStack() as held:
            self._handle = _plain(path)
            held.callback(os.close, self._handle)
            header, keys = self._head(identity)
            size = os.fstat(self._handle).st_size - len(MAGIC) - 4 - len(header.content) - MAC_SIZE
            self._chunks = held.enter_context(
                Opener(cipher(header.aead, keys.payload), self._read, size=size)
            )
            self.opened = self._manifest(header, keys, trust, kinds)
            self._held = held.pop_all()

    def files(self, sink: Sink | None = None) -> None:
        """Read all files to the end; each is given to `sink`, if any, before its hash is known.

        Raises:
            BundleRefused: `altered`, `truncated` or `trailing`: nothing that a sink took may be used.
        """
        for entry in self.opened.manifest.files:
            digest = hashlib.sha256()
            with sink(entry) if sink else nullcontext() as take:
                left = entry.size
                while left:
                    part = self._chunks.some(left)
                    if not part:
                        raise refused("truncated")
                    self._chunks.hash(digest, part)
                    if take:
                        take(part)
                    left -= len(part)
                self._chunks.settle()
            if digest.hexdigest() != entry.sha256:
                raise refused("altered")
        if self._chunks.some(1):
            raise refused("trailing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _head(self, identity: Identity) -> tuple[headers.Header, headers.Keys]:
        magic = self._raw(len(MAGIC), "no-bundle")
        if magic != MAGIC:
            raise refused("newer-format" if magic.startswith(MAGIC_FAMILY) else "no-bundle")
        size = int.from_bytes(self._raw(4, "truncated"), "big")
        if not 0 < size <= HEADER_MOST:
            raise refused("damaged-header")
        header = headers.read(self._raw(size, "truncated"))
        mac = self._raw(MAC_SIZE, "truncated")
        keys = headers.keys(header, headers.open_key(header, identity))
        if not hmac.compare_digest(keys.mac, mac):
            raise refused("altered")
        return header, keys

    def _manifest(
        self,
        header: headers.Header,
        keys: headers.Keys,
        trust: Trust | None,
        kinds: Collection[str] | None,
    ) -> Opened:
        head = self._chunks.exactly(HEAD)
        key, signature, size = head[:32].hex(), head[32:96], int.from_bytes(head[96:], "big")
        if size > MANIFEST_MOST:
            raise refused("malformed", why="it is too long")
        signer = _trusted(trust, key) if trust else None
        content = self._chunks.exactly(size)
        if not signature_holds(key, signature, SIGNED_MANIFEST + content):
            raise refused("forged")
        manifest = manifests.decode(content)
        if manifest.hdr_sha256 != keys.hash.hex():
            raise refused("forwarded")
        if trust and signer:
            _judge(manifest, signer, trust)
        if kinds is not None and manifest.kind not in kinds:
            raise refused("other-kind", kind=manifest.kind)
        self._chunks.expected = payload_size(HEAD + size + manifest.size)
        return Opened(
            manifest=manifest,
            digest=hashlib.sha256(content).hexdigest(),
            key=key,
            signer=signer,
            suite=header.suite,
            recipients=len(header.recipients),
            signed=head + content,
        )

    def _raw(self, count: int, reason: str) -> bytes:
        content = memoryview(bytearray(count))
        filled = 0
        while filled < count and (got := self._read(content[filled:])):
            filled += got
        if filled < count:
            raise refused(reason)
        return bytes(content)

    def _read(self, buffer: memoryview) -> int:
        return os.readv(self._handle, [buffer])


def verify(path: Path, identity: Identity, trust: Trust | None) -> Opened:
    """Read a whole bundle and write nothing; what it is, when everything about it holds.

    Raises:
        BundleRefused: with the exact reason.
    """
    with Reader(path, identity, trust) as reader:
        reader.files()
        return reader.opened


def look(path: Path, identity: Identity, trust: Trust | None) -> Opened:
    """As `verify`, but of the manifest alone: its files are not read.

    Raises:
        BundleRefused: with the exact reason.
    """
    with Reader(path, identity, trust) as reader:
        return reader.opened


def _plain(path: Path) -> int:
    """A handle on a regular file: a pipe or device could keep a reader for ever."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise refused("no-file") from problem
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise refused("no-file")
    return handle


def _trusted(trust: Trust, key: str) -> Signer:
    if key in trust.revoked:
        raise refused("revoked")
    signer = trust.signers.get(key)
    if signer is None:
        raise refused("stranger", words=words_of(key))
    if signer.until is not None and trust.now >= signer.until:
        raise refused("trust-expired", name=signer.name)
    return signer


def _judge(manifest: Manifest, signer: Signer, trust: Trust) -> None:
    if manifest.kind not in signer.kinds:
        raise refused("wrong-kind", name=signer.name, kind=manifest.kind)
    if manifest.key_epoch != signer.key_epoch:
        reason = "old-epoch" if manifest.key_epoch < signer.key_epoch else "new-epoch"
        raise refused(reason, epoch=manifest.key_epoch, name=signer.name)
    if trust.now >= manifest.expires:
        raise refused("expired", when=_date(manifest.expires))
    if manifest.created > trust.now + AHEAD:
        raise refused("future", when=_date(manifest.created))
    floor = trust.floors.get((signer.key, manifest.key_epoch, manifest.line), 0)
    if manifest.seq <= floor:
        raise refused("replayed", seq=manifest.seq, floor=floor)


def _date(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError):
        return f"second {seconds}"
