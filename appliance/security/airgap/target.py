"""Where an attempt to get out is aimed: ports of the control listener, the token it must bring there."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from dataclasses import dataclass, field

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


@dataclass(kw_only=True)
class Target:
    """`token` is new for each attempt. `open_link` and `listener` are descriptors made before the jail;
    `answered`: an echo of the token came back.
    """

    token: bytes
    tcp: int
    tcp6: int
    udp: int
    udp6: int
    open_link: int = -1
    listener: int = -1
    late: threading.Event = field(default_factory=threading.Event)
    helper: threading.Thread = field(default_factory=threading.Thread)
    answered: bool = False
    problems: list[OSError] = field(default_factory=list)


def sockaddr(port: int) -> bytes:
    """struct sockaddr_in of 127.0.0.1."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1"))


def problem() -> OSError:
    """The kernel's last reason, for calls made through libc."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
