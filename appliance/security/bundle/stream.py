"""The payload as STREAM chunks (Hoang, Reyhanitabar, Rogaway, Vizár 2015): cut, moved or repeated
chunks do not open.

Nonce: 11-byte big-endian counter, then 1 on the last chunk and 0 on all others; no AAD. One key never
serves two bundles, so counters are safe as nonces. Buffers are made once: memory stays the same at
any size. One thread hashes a chunk while the next is read, opened or sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from appliance.security.bundle.format import CHUNK, TAG
from appliance.security.bundle.refusals import refused

Cipher = AESGCM | ChaCha20Poly1305


class Digest(Protocol):
    """What hashlib gives."""

    def update(self, content: memoryview, /) -> None:
        """Take more bytes."""


def cipher(aead: str, key: bytes) -> Cipher:
    """The cipher of the chunks."""
    return AESGCM(key) if aead == "aes-256-gcm" else ChaCha20Poly1305(key)


class _Buffers:
    """Two chunks in turn, and what is still being hashed of each."""

    def __init__(self, size: int = CHUNK) -> None:
        self._hands = ThreadPoolExecutor(1)
        self._both = (memoryview(bytearray(size)), memoryview(bytearray(size)))
        self._busy: list[Future[None] | None] = [None, None]
        self._turn = 0

    @property
    def chunk(self) -> memoryview:
        """The one in use."""
        return self._both[self._turn]

    def turn(self) -> None:
        """Take the other, once nobody reads it any more."""
        self._turn = 1 - self._turn
        if (busy := self._busy[self._turn]) is not None:
            busy.result()
            self._busy[self._turn] = None

    def hash(self, digest: Digest, part: memoryview) -> None:
        """Hash a part of the chunk in use."""
        self._busy[self._turn] = self._hands.submit(digest.update, part)

    def settle(self) -> None:
        """Wait until everything is hashed."""
        self._hands.submit(int).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hands.shutdown()


class Sealer(_Buffers):
    """Seals bytes into chunks and gives each to `write`, which takes all of it."""

    def __init__(self, cipher: Cipher, write: Callable[[memoryview], None]) -> None:
        super().__init__()
        self._cipher, self._write = cipher, write
        self._sealed = memoryview(bytearray(CHUNK + TAG))
        self._used = self._count = 0

    def room(self) -> memoryview:
        """Where the next bytes go: at least one. Ask only when there are some to come."""
        if self._used == CHUNK:
            self._seal(last=False)
            self.turn()
        return self.chunk[self._used :]

    def put(self, count: int, digest: Digest | None = None) -> None:
        """Say that `count` bytes were put into `room()`, to be hashed too."""
        if digest is not None:
            self.hash(digest, self.chunk[self._used : self._used + count])
        self._used += count

    def write(self, content: bytes) -> None:
        """Seal bytes that are at hand."""
        left = memoryview(content)
        while left:
            room = self.room()
            count = min(len(room), len(left))
            room[:count] = left[:count]
            self.put(count)
            left = left[count:]

    def finish(self) -> None:
        """Seal what is left as the last chunk."""
        self._seal(last=True)

    def _seal(self, *, last: bool) -> None:
        sealed = self._sealed[: self._used + TAG]
        self._cipher.encrypt_into(_nonce(self._count, last), self.chunk[: self._used], None, sealed)
        self._write(sealed)
        self._count += 1
        self._used = 0


class Opener(_Buffers):
    """Opens chunks that `read` fills into a buffer (giving how many bytes; 0 at the end).

    `size` is how many bytes of chunks the file has, `expected` how many there must be, once known: they
    only tell a cut from a change in what is refused anyway.
    """

    def __init__(self, cipher: Cipher, read: Callable[[memoryview], int], *, size: int) -> None:
        whole = min(CHUNK + TAG, max(size, 0) + 1)  # one byte more tells a file that grows meanwhile
        super().__init__(whole)
        self._cipher, self._read = cipher, read
        self._sealed = [memoryview(bytearray(whole)), memoryview(bytearray(whole))]
        self._ahead = self._fill(self._sealed[0])
        self._at = self._end = self._count = 0
        self._last = False
        self.size = size
        self.expected: int | None = None

    def some(self, most: int) -> memoryview:
        """The next bytes, up to `most`; empty at the end. They stay as they are until the second next call.

        Raises:
            BundleRefused: `truncated`, `trailing` or `altered`.
        """
        if self._at == self._end:
            if self._last:
                return self.chunk[:0]
            self._open()
        part = self.chunk[self._at : min(self._end, self._at + most)]
        self._at += len(part)
        return part

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            BundleRefused: there are fewer.
        """
        parts = bytearray()
        while len(parts) < count:
            part = self.some(count - len(parts))
            if not part:
                raise refused("truncated")
            parts += part
        return bytes(parts)

    def _open(self) -> None:
        sealed = self._sealed[self._count % 2][: self._ahead]
        size = self._ahead - TAG
        full = self._ahead == CHUNK + TAG
        self._ahead = self._fill(self._sealed[(self._count + 1) % 2]) if full else 0
        self._last = self._ahead == 0
        if size < 1:  # a bundle always has a head, so its last chunk is never empty
            raise refused("truncated")
        self.turn()
        if not self._opened(sealed, size, last=self._last):
            raise self._explained(sealed, size)
        self._at, self._end = 0, size
        self._count += 1

    def _opened(self, sealed: memoryview, size: int, *, last: bool) -> bool:
        try:
            self._cipher.decrypt_into(_nonce(self._count, last), sealed, None, self.chunk[:size])
        except InvalidTag:
            return False
        return True

    def _explained(self, sealed: memoryview, size: int) -> Exception:
        """Why a chunk does not open: nothing that it holds is used."""
        if self._last and self._opened(sealed, size, last=False):
            return refused("truncated")
        if self.expected is not None and self.size != self.expected:
            return refused("truncated" if self.size < self.expected else "trailing")
        if not self._last and self._opened(sealed, size, last=True):
            return refused("trailing")
        return refused("altered")

    def _fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (count := self._read(buffer[filled:])):
            filled += count
        return filled


def _nonce(count: int, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\1" if last else b"\0")
