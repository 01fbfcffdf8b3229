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
from typing import Any, Protocol

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


class Ends(Protocol):
    """What a worker speaks through: a `Line`, or files that are carried by hand (federated/stick.py)."""

    @property
    def carried(self) -> frozenset[str]:
        """The sites whose messages go by hand, each a long way: they get adapters whole."""

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Send one frame."""

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next frame; None at the end; TimeoutError when none begins in time."""


class Line:
    """One end of the pair. Sending is safe from several threads; one thread receives."""

    carried: frozenset[str] = frozenset()

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = threading.Lock()

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Send one frame.

        Raises:
            OSError: the other side is gone.
        """
        with self._sending:
            self._end.sendall(_packed_head({"what": what, **head}, len(body)))
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
        head, body = _sizes(first + self._exactly(_HEADS.size - 1))
        return Frame(head=_head(self._exactly(head)), body=self._exactly(body))

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


def packed(frame: Frame) -> bytes:
    """A frame as it crosses, for a file."""
    return _packed_head(frame.head, len(frame.body)) + frame.body


def unpacked(content: bytes) -> Frame:
    """The frame that `packed` made.

    Raises:
        ValueError: it is none.
    """
    if len(content) < _HEADS.size:
        raise ValueError("cut short")
    head, body = _sizes(content[: _HEADS.size])
    rest = content[_HEADS.size :]
    if len(rest) != head + body:
        raise ValueError("another length")
    return Frame(head=_head(rest[:head]), body=rest[head:])


def _packed_head(head: dict[str, Any], body: int) -> bytes:
    said = json.dumps(head).encode()
    return _HEADS.pack(len(said), body) + said


def _sizes(content: bytes) -> tuple[int, int]:
    head, body = _HEADS.unpack(content)
    if head > _LONGEST_HEAD or body > _LONGEST_BODY:
        raise ValueError("too long for a frame")
    return head, body


def _head(content: bytes) -> dict[str, Any]:
    held = json.loads(content)
    if not isinstance(held, dict):
        raise ValueError("no object")
    return held
