"""A wire that a library trips over when it reaches for the network from Python.

It is a tripwire, not security: it hears what Python's socket module does and nothing of native code,
ctypes or children. The jail is what stops those. What this adds is the place: one line that says which
call, from which lines of which files, so that somebody can find out what wanted to leave.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_DEEPEST = 12  # places of the stack that are told
_ADDRESS_AT = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}
_NAMES = ("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_here = threading.local()


def arm(say: Callable[..., None]) -> None:
    """From now on, for good: `say("tripwire", call=..., at=[...])`, then PermissionError in the caller.

    `at` has the file and line of each caller, the nearest first; no values, no arguments, no address.
    """

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if not event.startswith("socket.") or not leaves(event, arguments):
            return
        if not getattr(_here, "telling", False):
            _here.telling = True
            try:
                say("tripwire", call=event, at=places(sys._getframe(1)))
            finally:
                _here.telling = False
        raise PermissionError(errno.EPERM, f"{event} would leave this machine")

    sys.addaudithook(heard)


def leaves(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event of the socket module is about another machine, or about a name."""
    if event in _NAMES:
        return not _is_here(_host(arguments[0]))
    place = _ADDRESS_AT.get(event)
    if place is None or place >= len(arguments):
        return False
    address = arguments[place]
    if event == "socket.getaddrinfo":
        return not _is_number(address) and not _is_here(address)
    if address is None or isinstance(address, (str, bytes, bytearray)):  # connected already, or a unix socket
        return False
    if getattr(arguments[0], "family", None) == getattr(socket, "AF_NETLINK", None):  # the kernel here
        return False
    return not _is_here(_host(address))


def places(frame: FrameType | None) -> list[str]:
    """Callers as "file:line", the nearest first."""
    found: list[str] = []
    while frame is not None and len(found) < _DEEPEST:
        found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return found


def _host(address: Any) -> Any:
    return address[0] if isinstance(address, tuple) and address else address


def _is_here(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_number(host: Any) -> bool:
    """Whether no name has to be looked up."""
    try:
        ipaddress.ip_address((host.decode() if isinstance(host, bytes) else str(host)).partition("%")[0])
    except ValueError:
        return False
    return True
