"""The kernel's own locks, called through libc: prctl(2), seccomp(2), landlock(7), namespaces(7). Linux only.

What fails raises OSError with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from appliance.security.airgap.filter import Instruction
from appliance.security.airgap.syscalls import Machine

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_BIND_TCP, _CONNECT_TCP = 1, 2  # LANDLOCK_ACCESS_NET_*
_SCOPE_ABSTRACT, _SCOPE_SIGNAL = 1, 2  # LANDLOCK_SCOPE_*
_RULE_PATH, _RULE_NET_PORT = 1, 2
_ASK_VERSION = 1
FILE_RULES, NETWORK_RULES, SCOPES = 2, 4, 6  # the Landlock versions that brought them
_TRUNCATES = 3
# LANDLOCK_ACCESS_FS_*: WRITE_FILE; REMOVE_DIR to MAKE_SYM and REFER (moving between folders); TRUNCATE
_WRITE, _CHANGE, _TRUNCATE = 1 << 1, 0x3FF0 & ~(1 << 6 | 1 << 11), 1 << 14
_MAKE_DEVICES = 1 << 6 | 1 << 11  # MAKE_CHAR, MAKE_BLOCK

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.c_void_p))


def call(number: int, *words: int | None) -> int:
    """One system call."""
    found = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_void_p, words)))
    if found < 0:
        raise _problem()
    return found


def no_new_privileges() -> None:
    """From now on no program that this process starts gains rights (setuid, file capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """No core, and no other process of this account may read this one's memory; ends with exec."""
    _prctl(_PR_SET_DUMPABLE, 0)


def install(program: Sequence[Instruction], machine: Machine) -> None:
    """Put a filter on every thread of this process and on all that it will start, for good."""
    packed = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(packed, len(packed))
    wanted = _Program(len(program), ctypes.addressof(held))
    left = call(machine.numbers["seccomp"], _SECCOMP_SET_MODE_FILTER, _TSYNC, ctypes.addressof(wanted))
    if left:
        raise OSError(0, f"thread {left} could not be put under the filter")


def landlock_version(machine: Machine) -> int:
    """Which Landlock this kernel has; 0 for none."""
    try:
        return call(machine.numbers["landlock_create_ruleset"], None, 0, _ASK_VERSION)
    except OSError:
        return 0


def landlock(
    machine: Machine,
    version: int,
    *,
    binds: bool,
    connects: bool,
    ports: Iterable[int] = (),
    writes: Iterable[Path] | None = None,
) -> None:
    """Landlock for this thread and what it starts: TCP connect() to `ports` only unless `connects` to any;
    TCP bind() only if `binds`; files written, made, moved and removed only in and below `writes`, if given.

    It also ends every way into processes outside (ptrace, /proc/PID/mem), and from version SCOPES on
    signals to them and their abstract unix sockets. Call it while there is a single thread.
    """
    alone = _WRITE | (_TRUNCATE if version >= _TRUNCATES else 0)  # what there is to allow of a file
    words = struct.pack("=Q", 0 if writes is None else alone | _CHANGE | _MAKE_DEVICES)
    if version >= NETWORK_RULES:
        words += struct.pack("=Q", (0 if connects else _CONNECT_TCP) | (0 if binds else _BIND_TCP))
    if version >= SCOPES:
        words += struct.pack("=Q", _SCOPE_ABSTRACT | _SCOPE_SIGNAL)
    held = ctypes.create_string_buffer(words, len(words))
    rules = call(machine.numbers["landlock_create_ruleset"], ctypes.addressof(held), len(words), 0)
    try:
        for port in ports:
            _allow(machine, rules, _RULE_NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port))
        for path in writes or ():
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = alone | (_CHANGE if stat.S_ISDIR(os.fstat(handle).st_mode) else 0)
                _allow(machine, rules, _RULE_PATH, struct.pack("=Qi", allowed, handle))
            finally:
                os.close(handle)
        call(machine.numbers["landlock_restrict_self"], rules, 0)
    finally:
        os.close(rules)


def _allow(machine: Machine, rules: int, kind: int, words: bytes) -> None:
    rule = ctypes.create_string_buffer(words, len(words))
    call(machine.numbers["landlock_add_rule"], rules, kind, ctypes.addressof(rule), 0)


def empty_network() -> None:
    """Leave this machine's network for a new one, with nothing in it but a loopback that is up.

    Needs a single thread; without root also a kernel that gives accounts namespaces of their own.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWNET) != 0:
        if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            raise _problem()
        for name, words in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123
                stream.write(words)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _prctl(what: int, value: int) -> None:
    if _libc.prctl(what, value, 0, 0, 0) != 0:
        raise _problem()


def _problem() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
