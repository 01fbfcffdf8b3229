"""The numbers of the system calls that the jail rules on, for the machines it knows.

Sources: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux (aarch64
uses the generic table), AUDIT_ARCH_* of include/uapi/linux/audit.h. Numbers are never reused by Linux.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

# name: (x86_64, aarch64); None where the machine has no such call
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # sockets
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # work that the kernel does for us, past every rule on calls
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes, and what they hold
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    # another view of files or of the network
    "clone": (56, 220),
    "clone3": (435, 435),
    "setns": (308, 268),
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # the machine
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    # what the jail and its tests call themselves
    "seccomp": (317, 277),
    "getppid": (110, 173),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A processor family as seccomp sees it: its AUDIT_ARCH and its numbers.

    `foreign` is the lowest number that belongs to another calling convention (x32 on x86_64).
    """

    name: str
    audit_arch: int
    numbers: Mapping[str, int]
    foreign: int | None = None


def _column(place: int) -> dict[str, int]:
    return {name: found for name, both in _NUMBERS.items() if (found := both[place]) is not None}


MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(name="x86_64", audit_arch=0xC000003E, numbers=_column(0), foreign=0x40000000),
    "aarch64": Machine(name="aarch64", audit_arch=0xC00000B7, numbers=_column(1)),
}


def this_machine() -> Machine | None:
    """The machine this process runs on; None where no filter can be made."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    return MACHINES.get(platform.machine())
