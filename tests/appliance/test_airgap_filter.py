"""The filter's program, run by an interpreter for both machines: what each profile lets through."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from airgap_support import run_filter

from appliance.security.airgap.filter import LISTEN, LOOPBACK, NONE, PROFILES, SERVE, SITE, Profile, program
from appliance.security.airgap.syscalls import MACHINES, Machine

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
UNIX, INET, NETLINK, INET6, PACKET, ALG, VSOCK, XDP = 1, 2, 16, 10, 17, 38, 40, 44
STREAM, DGRAM, RAW, SEQPACKET, NONBLOCK, CLOEXEC = 1, 2, 3, 5, 0o4000, 0o2000000
FASTOPEN = 0x20000000
# Not taken from the product: a call that goes missing there fails here. (x86_64, aarch64)
FORBIDDEN = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
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
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
SOCKETS = {  # (x86_64, aarch64)
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
}
PROCESSES = {"clone": (56, 220), "clone3": (435, 435)}
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
THREAD, CHILD = 0x3D0F00, 0x1200011  # flags of glibc's pthread_create and fork
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
every_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=list(MACHINES))
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))


def verdict(profile: Profile, machine: Machine, call: str, *arguments: int) -> int:
    number = {**FORBIDDEN, **SOCKETS, **PROCESSES}[call][list(MACHINES).index(machine.name)]
    assert number is not None
    return run_filter(program(profile, machine), number, *arguments, arch=machine.audit_arch)


@pytest.mark.parametrize("name", MACHINES)
def test_numbers_are_those_of_the_kernel(name: str) -> None:
    place = list(MACHINES).index(name)
    for call, numbers in {**FORBIDDEN, **SOCKETS, **PROCESSES}.items():
        assert MACHINES[name].numbers.get(call) == numbers[place], call
    if not HEADERS[name].exists():
        return
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", HEADERS[name].read_text())
    known = {call: int(number) for call, number in found}
    assert len(known) > 250
    for call, number in MACHINES[name].numbers.items():
        assert known[call] == number, call


@every_machine
@every_profile
def test_another_calling_convention_ends_the_process(machine: Machine, profile: Profile) -> None:
    made = program(profile, machine)
    for arch in {0x40000003, 0x40000028, 0xC000003E, 0xC00000B7} - {machine.audit_arch}:
        assert run_filter(made, 20, arch=arch) == KILL
    if machine.name == "x86_64":
        assert run_filter(made, 0x40000000 | 42, arch=machine.audit_arch) == KILL
        assert run_filter(made, 0xFFFFFFFF, arch=machine.audit_arch) == KILL
    assert run_filter(made, 0, arch=machine.audit_arch) == ALLOW
    assert len(made) < 4096 and all(0 <= jump < 256 for step in made for jump in step[1:3])


@every_machine
@every_profile
@pytest.mark.parametrize("call", FORBIDDEN)
def test_no_profile_allows_the_way_round(machine: Machine, profile: Profile, call: str) -> None:
    if FORBIDDEN[call][list(MACHINES).index(machine.name)] is not None:
        assert verdict(profile, machine, call) == REFUSE


@every_machine
@every_profile
def test_processes_are_made_but_no_namespaces(machine: Machine, profile: Profile) -> None:
    for flags in (THREAD, CHILD, 0x4111, THREAD | 1 << 40):
        assert verdict(profile, machine, "clone", flags) == ALLOW
        for one in NAMESPACES:
            assert verdict(profile, machine, "clone", flags | one) == REFUSE
    assert verdict(profile, machine, "clone3") == 0x00050000 | errno.ENOSYS


@every_machine
@every_profile
def test_fast_open_is_refused_however_it_is_sent(machine: Machine, profile: Profile) -> None:
    for call, place in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        for flags in (FASTOPEN, FASTOPEN | 0x4040, FASTOPEN | 1 << 40):
            assert verdict(profile, machine, call, *[7] * place, flags) == REFUSE, call
        assert verdict(profile, machine, call, *[7] * place, 0x4040) == ALLOW, call


@every_machine
def test_only_local_streams_are_made_in_the_strict_profiles(machine: Machine) -> None:
    for profile in (NONE, SERVE):
        for family in range(64):
            for kind in range(16):
                wanted = ALLOW if family == UNIX and kind in (STREAM, SEQPACKET) else REFUSE
                for flags in (0, NONBLOCK | CLOEXEC):
                    assert verdict(profile, machine, "socket", family, kind | flags, 0) == wanted
                    assert verdict(profile, machine, "socketpair", family, kind | flags, 0) == wanted
        # What the kernel cuts off, the filter must not look at.
        assert verdict(profile, machine, "socket", INET | 1 << 32, STREAM) == REFUSE
        assert verdict(profile, machine, "socket", UNIX | 1 << 32, STREAM) == ALLOW


@every_machine
@pytest.mark.parametrize("profile", [LISTEN, LOOPBACK, SITE], ids=lambda profile: profile.name)
def test_the_others_make_tcp_and_ask_the_kernel_for_addresses(machine: Machine, profile: Profile) -> None:
    for family in (INET, INET6):
        for protocol in range(300):
            wanted = ALLOW if protocol in (0, 6) else REFUSE  # 132 is SCTP, 256 SMC, 262 MPTCP
            assert verdict(profile, machine, "socket", family, STREAM, protocol) == wanted
        for kind in (DGRAM, RAW, 10):
            assert verdict(profile, machine, "socket", family, kind, 0) == REFUSE
    assert verdict(profile, machine, "socket", NETLINK, RAW, 0) == ALLOW
    for protocol in range(1, 32):
        assert verdict(profile, machine, "socket", NETLINK, RAW, protocol) == REFUSE
    for family in (PACKET, ALG, VSOCK, XDP):
        assert verdict(profile, machine, "socket", family, STREAM) == REFUSE
        assert verdict(profile, machine, "socket", family, RAW) == REFUSE
    assert verdict(profile, machine, "socketpair", INET, STREAM) == REFUSE


@every_machine
def test_connect_takes_no_address_that_an_internet_address_fits_in(machine: Machine) -> None:
    for size in (0, 2, 15, 16, 24, 28, 110, 2**31, 2**32 - 1):
        assert verdict(NONE, machine, "connect", 5, 1, size) == REFUSE
        for profile in (LISTEN, SERVE):
            assert verdict(profile, machine, "connect", 5, 1, size) == (ALLOW if size < 16 else REFUSE)
        for profile in (LOOPBACK, SITE):
            assert verdict(profile, machine, "connect", 5, 1, size) == ALLOW
