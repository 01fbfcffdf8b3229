"""Frames between a link process and the worker that started it: a JSON head and bytes, over a socket pair.

    head length, 4 bytes big-endian | body length, 8 bytes big-endian | head | body

The link process speaks with the network and holds no key but its own; the worker holds data and keys and
has no network. What crosses is this, and each side checks what it reads.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

_HEADS = struct.Struct(">IQ")
_LONGEST_HEAD, _LONGEST_BODY = 1 << 20, 1 << 34


@dataclass(frozen=True, kw_only=True)
class Frame:
    """`head` is a JSON object whose "what" names the kind of frame."""

    head: dict[str, Any]
    body: bytes = b""

    @property
    def what(self) -> str:
        """The kind of frame."""
        return str(self.head.get("what", ""))


class Line:
    """One end of the pair. Sending is safe from several threads; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = threading.Lock()

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Send one frame.

        Raises:
            OSError: the other side is gone.
        """
        said = json.dumps({"what": what, **head}).encode()
        with self._sending:
            self._end.sendall(_HEADS.pack(len(said), len(body)) + said)
            self._end.sendall(body)

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next frame; None at the end, or when none begins within `timeout` seconds (TimeoutError).

        Raises:
            TimeoutError: nothing came. ValueError: what came is no frame.
        """
        self._end.settimeout(timeout)
        first = self._end.recv(1)
        if not first:
            return None
        self._end.settimeout(None)
        head, body = _HEADS.unpack(first + self._exactly(_HEADS.size - 1))
        if head > _LONGEST_HEAD or body > _LONGEST_BODY:
            raise ValueError("too long for a frame")
        held = json.loads(self._exactly(head))
        if not isinstance(held, dict):
            raise ValueError("no object")
        return Frame(head=held, body=self._exactly(body))

    def close(self) -> None:
        """Let the other side see the end."""
        self._end.close()

    def _exactly(self, size: int) -> bytes:
        content = bytearray(size)
        view, got = memoryview(content), 0
        while got < size:
            count = self._end.recv_into(view[got:])
            if not count:
                raise ValueError("cut short")
            got += count
        return bytes(content)
