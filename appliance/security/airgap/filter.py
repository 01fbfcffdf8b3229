"""From a profile to its seccomp filter, a classic BPF program that the kernel runs at every call. Pure.

The rules, for every profile:

- A call from another machine's convention (32 bit, x32) ends the process.
- socket() makes only what the profile lists. Pairs and sockets of the unix family are streams: a
  datagram socket could write to any service's socket without connect().
- connect() is refused, or allowed with an address of less than 16 bytes only. BPF cannot read an address,
  but it sees its length, and Linux takes no IPv4 address of less than 16 bytes and no IPv6 address of
  less than 24 (tcp_v4_connect, tcp_v6_connect). That matters for sockets that are open already: one that
  listens, or that a client has connected to, can be turned around (shutdown() or connect() to nothing,
  then connect()). A unix socket has a name that short as /dev/fd/N: see `appliance/serve/wire.py`.
- TCP Fast Open, which connects without connect(), is refused in sendto, sendmsg and sendmmsg.
- clone() makes threads and processes, no namespace: in one of its own a process has rights over mounts and
  networks. clone3(), whose flags lie in memory, is not there (ENOSYS): libc then takes clone().
- What reaches the kernel, other processes or another network past these rules is refused (DENIED).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from itertools import chain

from appliance.security.airgap.syscalls import Machine

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant (struct sock_filter)

LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000  # SECCOMP_RET_*
ABSENT = 0x00050000 | errno.ENOSYS
MSG_FASTOPEN = 0x20000000
NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h)
SHORT_ADDRESS = 16  # bytes; connect() to the internet takes none below
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_TYPE_MASK = 0xF  # of socket()'s second argument; above it are SOCK_NONBLOCK and SOCK_CLOEXEC

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
TCP, ROUTE = 6, 0

NEVER, SHORT, ANY = "never", "short", "any"

DENIED = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    *("bpf", "perf_event_open", "userfaultfd", "kexec_load", "kexec_file_load", "syslog", "iopl", "ioperm"),
    *("init_module", "finit_module", "delete_module", "add_key", "request_key", "keyctl"),
    *("setns", "unshare", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
    *("name_to_handle_at", "open_by_handle_at", "fanotify_init"),
    *("reboot", "swapon", "swapoff", "acct", "quotactl"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a process may do with sockets.

    `sockets`: (family, type, protocol) that socket() makes; protocol None is any. `connect`: NEVER, SHORT
    or ANY. `empty_network`: it runs in a network of its own that has nothing but a loopback. `binds`: it may
    open a TCP port. `ports`: it may connect to TCP ports that are named when it enters.
    """

    name: str
    sockets: tuple[tuple[int, int, int | None], ...]
    connect: str
    empty_network: bool = False
    binds: bool = False
    ports: bool = False


_LOCAL = ((UNIX, STREAM, None), (UNIX, SEQPACKET, None))
_TCP = tuple((family, STREAM, protocol) for family in (INET, INET6) for protocol in (0, TCP))
_ADDRESSES = ((NETLINK, RAW, ROUTE), (NETLINK, DGRAM, ROUTE))  # the kernel's list of this machine's addresses

NONE = Profile(name="none", sockets=_LOCAL, connect=NEVER)
LISTEN = Profile(name="listen", sockets=(*_LOCAL, *_TCP, *_ADDRESSES), connect=SHORT, binds=True)
SERVE = Profile(name="serve", sockets=_LOCAL, connect=SHORT)
LOOPBACK = Profile(
    name="loopback", sockets=(*_LOCAL, *_TCP, *_ADDRESSES), connect=ANY, empty_network=True, binds=True
)
SITE = Profile(name="site", sockets=(*_LOCAL, *_TCP, *_ADDRESSES), connect=ANY, binds=True, ports=True)
PROFILES = {profile.name: profile for profile in (NONE, LISTEN, SERVE, LOOPBACK, SITE)}


def program(profile: Profile, machine: Machine) -> list[Instruction]:
    """The filter of `profile` on `machine`."""
    number = machine.numbers
    made = [
        (LOAD, 0, 0, _ARCH),
        (EQUAL, 1, 0, machine.audit_arch),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, _NUMBER),
    ]
    if machine.foreign is not None:
        made += [(AT_LEAST, 0, 1, machine.foreign), (RETURN, 0, 0, KILL)]
    made += _rule(number["socket"], _only(profile.sockets))
    made += _rule(number["socketpair"], _only(_LOCAL))
    if profile.connect != ANY:
        made += _rule(number["connect"], _connect(profile.connect))
    for name, place in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        made += _rule(number[name], _without(place, MSG_FASTOPEN))
    made += _rule(number["clone"], _without(0, NAMESPACES))  # flags come first on both machines: clone(2)
    made += _rule(number["clone3"], [(RETURN, 0, 0, ABSENT)])
    for name in DENIED:
        if name in number:
            made += _rule(number[name], [(RETURN, 0, 0, REFUSE)])
    return [*made, (RETURN, 0, 0, ALLOW)]


def _rule(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body`, which returns, for one call; others go on behind it with the number still loaded."""
    return [(EQUAL, 0, len(body), number), *body]


def _only(sockets: tuple[tuple[int, int, int | None], ...]) -> list[Instruction]:
    made: list[Instruction] = []
    for family, kind, protocol in sockets:
        tests = [
            [_argument(0), (EQUAL, 0, 0, family)],
            [_argument(1), (AND, 0, 0, _TYPE_MASK), (EQUAL, 0, 0, kind)],
            *([] if protocol is None else [[_argument(2), (EQUAL, 0, 0, protocol)]]),
        ]
        steps = [*chain.from_iterable(tests), (RETURN, 0, 0, ALLOW)]
        made += [
            (code, 0, len(steps) - place - 1, value) if code == EQUAL else (code, 0, 0, value)
            for place, (code, _, _, value) in enumerate(steps)
        ]
    return [*made, (RETURN, 0, 0, REFUSE)]


def _connect(how: str) -> list[Instruction]:
    if how == NEVER:
        return [(RETURN, 0, 0, REFUSE)]
    return [_argument(2), (AT_LEAST, 0, 1, SHORT_ADDRESS), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]


def _without(place: int, flags: int) -> list[Instruction]:
    return [_argument(place), (ANY_BIT, 0, 1, flags), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]


def _argument(place: int) -> Instruction:
    """Loads the low half of an argument: all of what the kernel takes as an int."""
    return (LOAD, 0, 0, _ARGUMENTS + 8 * place)
