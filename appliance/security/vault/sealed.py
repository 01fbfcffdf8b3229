"""Sealed files, format S1 (docs/sealed-format.md): written in one pass, read from any place.

After the header come chunks of 1 MiB under AES-256-GCM, each with its number and whether it is the last
in the nonce (STREAM, Hoang et al. 2015), so cutting, swapping or repeating chunks is refused. The header is
bound to the file's name: two files cannot be swapped. An older version of the same file put back is not
noticed here; the SHA-256 in the database is what tells that.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.core.sealing import SealBroken
from appliance.security.vault import header as heads
from appliance.security.vault.header import CHUNK, LENGTH
from appliance.security.vault.keys import TAG, StoreKeys, new_key


def seal(source: BinaryIO, target: Path, *, keys: StoreKeys, name: str) -> None:
    """Write all of `source` sealed to the new file `target`, to lie at `name` in the home; fsynced.

    Memory: two chunks, whatever the size.

    Raises:
        OSError: the disk is full, or `target` is there.
    """
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with writing(handle, keys=keys, name=name) as write:
            buffer = memoryview(bytearray(CHUNK))
            while count := _filled(source, buffer):
                write(buffer[:count])
    finally:
        os.close(handle)


@contextmanager
def writing(handle: int, *, keys: StoreKeys, name: str) -> Iterator[Callable[[memoryview], None]]:
    """Give what takes the parts of a file in turn: sealed into the empty file open as `handle`; fsynced.

    Memory: two chunks. What was begun and not ended has no header, so it is no sealed file.
    """
    written = io.FileIO(handle, "wb", closefd=False)
    written.seek(LENGTH)
    body = _Body(written)
    yield body.take
    body.end()
    store = name.split("/", 1)[0]
    head = heads.new_header(epoch=keys.epoch, size=body.size, store=store)
    head = heads.with_key(head, keys.stores[store], body.secret, vault=keys.vault, name=name)
    written.seek(0)
    _all(written, memoryview(heads.fresh(head)))
    os.fsync(handle)


class _Body:
    """The chunks of one file; the last one is only known when nothing comes after it."""

    def __init__(self, written: io.FileIO) -> None:
        self.secret, self.size = new_key(), 0
        self._written, self._cipher = written, AESGCM(self.secret)
        self._plain, self._held, self._number = memoryview(bytearray(CHUNK)), 0, 0
        self._out = memoryview(bytearray(CHUNK + TAG))

    def take(self, part: memoryview) -> None:
        """Take more of the file."""
        while part:
            if self._held == CHUNK:
                self._flush(self._plain, last=False)
                self._held = 0
            if not self._held and len(part) > CHUNK:
                self._flush(part[:CHUNK], last=False)
                part = part[CHUNK:]
                continue
            step = min(CHUNK - self._held, len(part))
            self._plain[self._held : self._held + step] = part[:step]
            self._held, part = self._held + step, part[step:]

    def end(self) -> None:
        """Write the last chunk, which is empty where the file is."""
        self._flush(self._plain[: self._held], last=True)

    def _flush(self, plain: memoryview, *, last: bool) -> None:
        sealed = self._out[: len(plain) + TAG]
        self._cipher.encrypt_into(_nonce(self._number, last=last), plain, None, sealed)
        _all(self._written, sealed)
        self.size, self._number = self.size + len(plain), self._number + 1


class SealedReader(io.RawIOBase):
    """The plain content of a sealed file; `seek` costs one chunk. Nothing is given out unverified.

    Raises:
        SealBroken: the file was altered, cut, moved, or is of another vault or key epoch.
    """

    def __init__(self, path: Path, *, keys: StoreKeys, name: str) -> None:
        super().__init__()
        self._name = name
        self._file = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")
        try:
            head, secret = self._opened(keys)
        except BaseException:
            self._file.close()
            raise
        self.size = head.size
        self._cipher = AESGCM(secret)
        self._chunks = max(1, -(-self.size // CHUNK))
        self._at, self._number = 0, -1
        self._sealed, self._plain = bytearray(CHUNK + TAG), bytearray(CHUNK)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the next one read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("before the start of the file")
        self._at = start + offset
        return self._at

    def readinto(self, target: Any, /) -> int:
        """Fill `target` as far as the file goes."""
        view = memoryview(target).cast("B")
        done = 0
        while done < len(view) and self._at < self.size:
            number, inside = divmod(self._at, CHUNK)
            length = min(CHUNK, self.size - number * CHUNK)
            if not inside and len(view) - done >= length and number != self._number:
                self._decrypt(number, length, view[done : done + length])
                step = length
            else:
                if number != self._number:
                    self._number = -1
                    self._decrypt(number, length, memoryview(self._plain)[:length])
                    self._number = number
                step = min(length - inside, len(view) - done)
                view[done : done + step] = memoryview(self._plain)[inside : inside + step]
            done, self._at = done + step, self._at + step
        return done

    def close(self) -> None:
        """Close the file, and forget what was decrypted."""
        if not self.closed:
            self._file.close()
            if hasattr(self, "_plain"):
                self._plain[:] = bytes(len(self._plain))
        super().close()

    def _opened(self, keys: StoreKeys) -> tuple[heads.Header, bytes]:
        try:
            found = heads.read_headers(self._file.read(LENGTH))
        except ValueError:
            raise self._broken("is not sealed") from None
        mine = [head for head in found if head is not None and head.epoch == keys.epoch]
        if not mine:
            raise self._broken("is sealed under other keys" if any(found) else "is damaged")
        head = mine[0]
        if head.store != self._name.split("/", 1)[0]:
            raise self._broken("was moved")
        try:
            secret = heads.file_key(head, keys.stores[head.store], vault=keys.vault, name=self._name)
        except ValueError:
            raise self._broken("was altered or moved, or is another site's") from None
        chunks = max(1, -(-head.size // CHUNK))
        if os.fstat(self._file.fileno()).st_size != LENGTH + head.size + chunks * TAG:
            raise self._broken("is cut, or longer than it was")
        return head, secret

    def _decrypt(self, number: int, length: int, target: memoryview) -> None:
        sealed = memoryview(self._sealed)[: length + TAG]
        self._file.seek(LENGTH + number * (CHUNK + TAG))
        if _filled(self._file, sealed) != len(sealed):
            raise self._broken("is cut")
        try:
            nonce = _nonce(number, last=number == self._chunks - 1)
            self._cipher.decrypt_into(nonce, sealed, None, target)
        except InvalidTag:
            target[:] = bytes(len(target))
            raise self._broken("was altered") from None

    def _broken(self, how: str) -> SealBroken:
        return SealBroken(
            f"The sealed file {self._name} {how}.", "Restore it from a backup, or make it again."
        )


def open_sealed(path: Path, *, keys: StoreKeys, name: str) -> SealedReader:
    """A reader whose whole content is known to be there and unaltered only as it is read.

    An empty file has one chunk too, which is checked here.
    """
    reader = SealedReader(path, keys=keys, name=name)
    if not reader.size:
        try:
            reader._decrypt(0, 0, memoryview(bytearray()))
        except BaseException:
            reader.close()
            raise
    return reader


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _filled(source: BinaryIO | io.FileIO, target: bytearray | memoryview) -> int:
    """Read until `target` is full or the source ends; bytes read."""
    view, done = memoryview(target), 0
    while done < len(view):
        count = source.readinto(view[done:])  # type: ignore[union-attr]
        if not count:
            break
        done += count
    return done


def _all(written: io.FileIO, content: memoryview) -> None:
    done = 0
    while done < len(content):
        done += written.write(content[done:])
