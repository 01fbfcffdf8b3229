"""The ways out (`ways.py`) that build what they send by hand: resolver, ICMP, Ethernet, io_uring."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import time
from typing import Any

from appliance.security.airgap.syscalls import this_machine
from appliance.security.airgap.target import Target, libc, problem, sockaddr

_LOOPBACK, _IPV6 = "lo", 0x86DD
_PATIENCE = 2.0  # seconds
_OP_CONNECT, _OP_SEND, _OP_SOCKET = 16, 26, 45  # IORING_OP_*
_GET_EVENTS = 1
_SUBMITTED, _COMPLETED, _ENTRIES = 0, 0x8000000, 0x10000000  # IORING_OFF_*


def dns(target: Target) -> None:
    """A question of libc's resolver, put to the control listener and to nobody else (resolver(3))."""
    start, ask = _resolver("__res_ninit"), _resolver("res_nquery", "__res_nquery")
    state = ctypes.create_string_buffer(2048)  # struct __res_state and room
    if start(state) != 0:
        raise OSError("the resolver did not start")
    # retrans, retry, options (kept), nscount, nsaddr_list[0]
    struct.pack_into("=ii", state, 0, 1, 1)
    struct.pack_into("=i16s", state, 16, 1, sockaddr(target.udp))
    answer = ctypes.create_string_buffer(512)
    name = target.token + b".invalid"
    ask(state, ctypes.c_char_p(name), 1, 1, answer, len(answer))
    # Nobody answers, so it fails in any case: what counts is what the listener heard.


def _resolver(*names: str) -> Any:
    """The first of these functions that libc has (glibc 2.34 and newer) or libresolv (before)."""
    for library in (libc, ctypes.CDLL("libresolv.so.2", use_errno=True)):
        for name in names:
            if hasattr(library, name):
                return getattr(library, name)
    raise OSError("this libc has no such resolver")


def icmp(target: Target) -> None:
    """An echo request, with the token as its data; returns when the echo has come back."""
    try:
        link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    with link:
        link.settimeout(0.2)
        bare = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1) + target.token
        link.sendto(bare[:2] + struct.pack("!H", checksum(bare)) + bare[4:], ("127.0.0.1", 0))
        limit = time.monotonic() + _PATIENCE
        while time.monotonic() < limit:
            heard = link.recv(2048)
            start = (heard[0] & 0xF) * 4 if heard[0] >> 4 == 4 else 0  # a raw socket shows the IP header
            if heard[start] == 0 and target.token in heard:
                target.answered = True
                return
    raise OSError("no echo")


def packet(target: Target) -> None:
    """A whole Ethernet frame on the loopback device, with IPv6 and UDP made by hand.

    Not IPv4: Linux drops 127.0.0.1 in a frame that it did not send itself (ip_route_input, "martian").
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV6)) as link:
        link.bind((_LOOPBACK, 0))
        here, size = socket.inet_pton(socket.AF_INET6, "::1"), 8 + len(target.token)
        bare = struct.pack("!HHHH", 9, target.udp6, size, 0) + target.token
        check = checksum(here + here + struct.pack("!II", size, socket.IPPROTO_UDP) + bare)
        datagram = bare[:6] + struct.pack("!H", check) + bare[8:]
        header = struct.pack("!IHBB", 6 << 28, size, socket.IPPROTO_UDP, 64) + here + here
        link.send(bytes(12) + struct.pack("!H", _IPV6) + header + datagram)


def checksum(words: bytes) -> int:
    """RFC 1071."""
    words += bytes(len(words) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def io_uring(target: Target) -> None:
    """A socket made, connected and written to by io_uring(7): no socket call is made at all."""
    machine = this_machine()
    if machine is None:
        raise OSError("unknown machine")
    facts = ctypes.create_string_buffer(120)  # struct io_uring_params
    ring = libc.syscall(machine.numbers["io_uring_setup"], 4, facts)
    if ring < 0:
        raise problem()
    entries, completions = struct.unpack_from("=II", facts, 0)
    to, done = struct.unpack_from("=7I", facts, 40), struct.unpack_from("=6I", facts, 80)
    with (
        mmap.mmap(ring, to[6] + entries * 4, offset=_SUBMITTED) as queue,
        mmap.mmap(ring, done[5] + completions * 16, offset=_COMPLETED) as answers,
        mmap.mmap(ring, entries * 64, offset=_ENTRIES) as orders,
    ):

        def order(operation: int, handle: int, address: int, length: int, offset: int) -> int:
            tail = struct.unpack_from("=I", queue, to[1])[0]
            place = tail & struct.unpack_from("=I", queue, to[2])[0]
            struct.pack_into(
                "=BBHiQQIIQ24x", orders, place * 64, operation, 0, 0, handle, offset, address, length, 0, 0
            )
            struct.pack_into("=I", queue, to[6] + 4 * place, place)
            struct.pack_into("=I", queue, to[1], tail + 1)
            enter = machine.numbers["io_uring_enter"]
            if libc.syscall(enter, ring, 1, 1, _GET_EVENTS, None, 0) < 0:
                raise problem()
            head = struct.unpack_from("=I", answers, done[0])[0]
            slot = done[5] + 16 * (head & struct.unpack_from("=I", answers, done[2])[0])
            struct.pack_into("=I", answers, done[0], head + 1)
            found: int = struct.unpack_from("=i", answers, slot + 8)[0]
            if found < 0:
                raise OSError(-found, os.strerror(-found))
            return found

        where = ctypes.create_string_buffer(sockaddr(target.tcp), 16)
        words = ctypes.create_string_buffer(target.token, len(target.token))
        link = order(_OP_SOCKET, socket.AF_INET, 0, 0, socket.SOCK_STREAM)
        order(_OP_CONNECT, link, ctypes.addressof(where), 0, len(where))
        order(_OP_SEND, link, ctypes.addressof(words), len(words), 0)
        os.close(link)
    os.close(ring)
