"""The control listener: TCP (IPv4, IPv6) and UDP on loopback, which notes what it was brought."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from types import TracebackType

_SETTLE = 0.3  # seconds without anything new
_MOST = 1 << 20
_NOBODY = {"tcp": 9, "udp": 9, "tcp6": 9, "udp6": 9}


class Control:
    """Listens from `with` to its end. Only `heard` looks at what came."""

    def __init__(self) -> None:
        self._came = bytearray()
        self._last = time.monotonic()
        self._ends = False
        self._selector = selectors.DefaultSelector()
        self._bound = {
            name: made
            for name, family, kind, host in (
                ("tcp", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
                ("udp", socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
                ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, "::1"),
                ("udp6", socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
            )
            if (made := _listening(family, kind, host)) is not None
        }
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens: tcp, udp, tcp6, udp6; the port nobody has where it cannot."""
        return _NOBODY | {name: made.getsockname()[1] for name, made in self._bound.items()}

    def link(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.ports["tcp"]), 5)

    def heard(self, token: str) -> bool:
        """Whether `token` has come, by any way."""
        return token.encode() in self._came

    def settle(self) -> None:
        """Return when nothing new comes any more."""
        while time.monotonic() - self._last < _SETTLE:
            time.sleep(_SETTLE / 4)

    def __enter__(self) -> Control:
        for part in self._bound.values():
            part.setblocking(False)
            self._selector.register(part, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _listen(self) -> None:
        while not self._ends:
            for key, _ in self._selector.select(0.1):
                if isinstance(key.fileobj, socket.socket):
                    self._take(key.fileobj)

    def _take(self, part: socket.socket) -> None:
        streams = part.type == socket.SOCK_STREAM
        if streams and part in self._bound.values():
            link, _ = part.accept()
            link.setblocking(False)
            self._selector.register(link, selectors.EVENT_READ)
            return
        try:
            came = part.recv(4096)
        except OSError:
            came = b""
        if came:
            self._last = time.monotonic()
            self._came += (came + b"\n")[: max(0, _MOST - len(self._came))]
        elif streams:
            self._selector.unregister(part)
            part.close()


def _listening(family: int, kind: int, host: str) -> socket.socket | None:
    """None where the kernel has no such address, as one without IPv6: that way is shut anyway."""
    try:
        made = socket.socket(family, kind)
    except OSError:
        return None
    try:
        made.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
    except OSError:
        made.close()
        return None
    return made
