"""Ways out of this machine, each a real attempt to bring a token to a listener on loopback.

Standard library and libc only. Each function gets a Target and returns when it has sent, or raises
OSError. What a way needs to be older than the jail is made by `attempt.py`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from appliance.security.airgap import ways_deep
from appliance.security.airgap.filter import MSG_FASTOPEN
from appliance.security.airgap.syscalls import this_machine
from appliance.security.airgap.target import Target, libc, problem, sockaddr

_PATIENCE = 2.0  # seconds
_FAR = (
    "import socket, sys\n"
    "with socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2) as link:\n"
    "    link.sendall(sys.argv[2].encode())"
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way out: what people read, and what tries it."""

    name: str
    title: str
    attempt: Callable[[Target], None]


def tcp(target: Target) -> None:
    """connect() over IPv4."""
    with socket.create_connection(("127.0.0.1", target.tcp), _PATIENCE) as link:
        link.sendall(target.token)


def tcp6(target: Target) -> None:
    """connect() over IPv6."""
    with socket.create_connection(("::1", target.tcp6), _PATIENCE) as link:
        link.sendall(target.token)


def direct(target: Target) -> None:
    """socket, connect and send as bare system calls, past every library."""
    machine = this_machine()
    if machine is None:
        raise OSError("unknown machine")
    number = machine.numbers
    handle = _called(libc.syscall(number["socket"], socket.AF_INET, socket.SOCK_STREAM, 0))
    address = sockaddr(target.tcp)
    _called(libc.syscall(number["connect"], handle, address, len(address)))
    _called(libc.syscall(number["sendto"], handle, target.token, len(target.token), 0, None, 0))


def fast_open_sendto(target: Target) -> None:
    """TCP Fast Open: sendto() that connects by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.sendto(target.token, MSG_FASTOPEN, ("127.0.0.1", target.tcp))


def fast_open_sendmsg(target: Target) -> None:
    """TCP Fast Open by sendmsg()."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.sendmsg([target.token], [], MSG_FASTOPEN, ("127.0.0.1", target.tcp))


def udp(target: Target) -> None:
    """One datagram by sendto()."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.sendto(target.token, ("127.0.0.1", target.udp))


def udp_connected(target: Target) -> None:
    """A datagram socket that is connected, then written to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(("127.0.0.1", target.udp))
        os.write(link.fileno(), target.token)


def child(target: Target) -> None:
    """Another program, started from here, that connects."""
    words = [sys.executable, "-I", "-S", "-c", _FAR, str(target.tcp), target.token.decode()]
    if subprocess.run(words, capture_output=True, timeout=10, check=False).returncode:
        raise OSError("the program could not connect")


def thread(target: Target) -> None:
    """A thread that was there before the jail."""
    target.late.set()
    target.helper.join(_PATIENCE * 2)
    if target.problems:
        raise target.problems[0]


def start_thread(target: Target) -> None:
    """The thread of `thread`: it waits until the jail is closed, then connects."""

    def wait() -> None:
        target.late.wait()
        try:
            tcp(target)
        except OSError as problem:
            target.problems.append(problem)

    target.helper = threading.Thread(target=wait, daemon=True)
    target.helper.start()


def inherited(target: Target) -> None:
    """A connection that was open before the jail, and handed down."""
    os.write(target.open_link, target.token)


def turned(target: Target) -> None:
    """A listening socket, as an endpoint has one, made into one that connects."""
    listener = socket.socket(fileno=target.listener)
    address = ("127.0.0.1", target.tcp)
    nothing = struct.pack("=H", socket.AF_UNSPEC)
    ways: tuple[Callable[[], object], ...] = (
        lambda: listener.connect(address),
        lambda: listener.sendto(target.token, MSG_FASTOPEN, address),
        lambda: listener.sendmsg([target.token], [], MSG_FASTOPEN, address),
    )
    failed = OSError("cannot be turned")
    for attempt in ways:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            libc.connect(listener.fileno(), nothing, len(nothing))
        try:
            attempt()
            listener.send(target.token)
            return
        except OSError as problem:
            failed = problem
    raise failed


def sendmmsg(target: Target) -> None:
    """Many datagrams in one call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        address = ctypes.create_string_buffer(sockaddr(target.udp), 16)
        words = ctypes.create_string_buffer(target.token, len(target.token))
        part = struct.pack("@PN", ctypes.addressof(words), len(target.token))
        parts = ctypes.create_string_buffer(part, len(part))
        # struct mmsghdr: a msghdr (name, its length, parts, their count, control, its length, flags), a count
        layout = "@PI4xPNPNi4xI4x"
        header = struct.pack(layout, ctypes.addressof(address), 16, ctypes.addressof(parts), 1, 0, 0, 0, 0)
        _called(libc.sendmmsg(link.fileno(), ctypes.create_string_buffer(header, len(header)), 1, 0))


WAYS = (
    Way(name="tcp", title="TCP connect", attempt=tcp),
    Way(name="tcp6", title="TCP connect over IPv6", attempt=tcp6),
    Way(name="direct", title="TCP by bare system calls", attempt=direct),
    Way(name="fastopen-sendto", title="TCP Fast Open by sendto", attempt=fast_open_sendto),
    Way(name="fastopen-sendmsg", title="TCP Fast Open by sendmsg", attempt=fast_open_sendmsg),
    Way(name="udp", title="UDP datagram", attempt=udp),
    Way(name="udp-connected", title="UDP, connected", attempt=udp_connected),
    Way(name="sendmmsg", title="UDP, many in one call", attempt=sendmmsg),
    Way(name="dns", title="name lookup (DNS)", attempt=ways_deep.dns),
    Way(name="icmp", title="ICMP echo", attempt=ways_deep.icmp),
    Way(name="packet", title="raw Ethernet frame", attempt=ways_deep.packet),
    Way(name="io-uring", title="connect by io_uring", attempt=ways_deep.io_uring),
    Way(name="child", title="a program started from the jail", attempt=child),
    Way(name="thread", title="a thread older than the jail", attempt=thread),
    Way(name="inherited", title="a connection older than the jail", attempt=inherited),
    Way(name="turned", title="a listening socket turned around", attempt=turned),
)


def _called(found: int) -> int:
    if found < 0:
        raise problem()
    return int(found)
