"""The jail: what a process may no longer do, from here to its end and for all it starts.

`enter` is one way. It closes what was inherited, forbids new rights, cores and readers of this memory,
and puts the seccomp filter of a profile on every thread (`filter.py`). Where the kernel has Landlock's
network rules (Linux 6.7), they hold TCP a second time and shut the memory of processes outside; its file
rules (Linux 5.19) hold where it may write. Entered again, the stricter of both holds.

What it does not do: hold what is read, CPU or memory. A profile with connect "short" still reaches unix
sockets this account may open.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.core.crash import no_core
from appliance.core.errors import JailRefused
from appliance.security.airgap import kernel
from appliance.security.airgap.filter import Profile, program
from appliance.security.airgap.syscalls import Machine, this_machine

_held: list[Jail] = []
_OFF = "or allow jobs without one: cloister airgap policy off"


@dataclass(frozen=True, kw_only=True)
class Jail:
    """What holds this process: the profile entered last, and Landlock's version where it helps (else 0).

    `files`: it can write only where it was said. `seen_open`: the door that was found shut afterwards (an
    internet socket) had been open before.
    """

    profile: str
    landlock: int
    empty_network: bool
    files: bool
    seen_open: bool


def jailed() -> Jail | None:
    """The jail that this process entered; None outside of one."""
    return _held[-1] if _held else None


def holds_files() -> bool:
    """Whether this kernel can hold a job to the places where it may write."""
    machine = this_machine()
    return machine is not None and kernel.landlock_version(machine) >= kernel.FILE_RULES


def enter(
    profile: Profile,
    *,
    keep: Collection[int] | None = None,
    ports: Iterable[int] = (),
    writes: Iterable[Path] | None = None,
) -> Jail:
    """Put this process into the jail for good.

    `keep`: descriptors that stay open besides 0, 1 and 2; None leaves all open, as for a second
    entry. `ports`: where a profile that has ports may connect to. `writes`: the only files and folders in
    which it may write, if the kernel can hold that; None is everywhere. Enter the first time while there is
    a single thread: seccomp takes in the others, Landlock does not.

    Raises:
        JailRefused: this machine or its kernel cannot hold it; the process must not go on.
    """
    machine = this_machine()
    if machine is None:
        raise JailRefused(
            f"There is no jail for {os.uname().sysname} on {os.uname().machine}.",
            f"Use Linux on x86_64 or aarch64, {_OFF}",
        )
    try:
        if keep is not None:
            _close_others({0, 1, 2, *keep})
        if profile.empty_network:
            _check_nothing_stays()
            _leave_network()
        no_core()
        kernel.no_new_privileges()  # first: without root the kernel asks for it before any of the others
        landlock = _held[0].landlock if _held else _restrict(profile, machine, ports, writes)
        if not _hides_processes():
            kernel.not_dumpable()
        before = _internet()
        kernel.install(program(profile, machine), machine)
    except OSError as problem:
        raise JailRefused(
            f"The kernel did not make the jail: {problem.strerror or problem}.",
            f"Use a kernel with seccomp filters, {_OFF}",
        ) from problem
    _check(profile)
    _held.append(
        Jail(
            profile=profile.name,
            landlock=landlock,
            empty_network=profile.empty_network,
            files=_held[0].files if _held else writes is not None and landlock >= kernel.FILE_RULES,
            seen_open=before is None,
        )
    )
    return _held[-1]


def for_child(profile: Profile) -> Callable[[], None]:
    """What a child of a jailed process runs between fork and exec to be held by `profile` as well."""
    machine = this_machine()
    if machine is None or not _held:
        return lambda: None
    return partial(kernel.install, program(profile, machine), machine)


def _restrict(profile: Profile, machine: Machine, ports: Iterable[int], writes: Iterable[Path] | None) -> int:
    """Landlock's version where it was put on, else 0. Only once: what was started between two could not
    be signalled any more."""
    version = kernel.landlock_version(machine)
    if version < kernel.NETWORK_RULES and profile.ports:
        raise JailRefused(
            f"This kernel (Landlock {version}) cannot hold a process to the coordinator's port.",
            f"Use Linux 6.7 or newer, {_OFF}",
        )
    if version < kernel.FILE_RULES:
        writes = None
    if writes is None and version < (kernel.SCOPES if profile.empty_network else kernel.NETWORK_RULES):
        return 0
    kernel.landlock(
        machine,
        version,
        binds=profile.binds,
        connects=profile.empty_network,
        ports=ports if profile.ports else (),
        writes=writes,
    )
    return version


def _leave_network() -> None:
    try:
        kernel.empty_network()
    except OSError as problem:
        raise JailRefused(
            f"This account cannot have a network of its own for several processes: {problem.strerror}.",
            f"Train with one process, allow user namespaces (sysctl), {_OFF}",
        ) from problem


def _check_nothing_stays() -> None:
    """A thread or a socket keeps the network in which it was made."""
    sockets = [one for one in map(int, os.listdir("/proc/self/fd")) if _is_internet(one)]  # noqa: PTH208
    if sockets or len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        raise JailRefused(
            "A process with threads or open internet sockets cannot leave the network.",
            "This is a mistake of the program: such a job must enter the jail first.",
        )


def _is_internet(handle: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            return False
        copy = socket.socket(fileno=os.dup(handle))
    except OSError:  # the listing's own
        return False
    with copy:
        return copy.family != socket.AF_UNIX


def _check(profile: Profile) -> None:
    """Look whether the doors are shut: a filter that the kernel took but does not run holds nothing.

    Raises:
        JailRefused: one is open.
    """
    found = _internet(datagram=True)
    if found != errno.EPERM or "Seccomp:\t2" not in Path("/proc/self/status").read_text():
        raise JailRefused(
            f"The jail {profile.name} does not hold: an internet socket can still be opened.",
            f"Use a kernel with seccomp filters, {_OFF}",
        )


def _internet(*, datagram: bool = False) -> int | None:
    """The error number of opening an internet socket; None if it opens."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM).close()
    except OSError as problem:
        return problem.errno
    return None


def _close_others(kept: set[int]) -> None:
    """Close every descriptor but `kept`."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError as problem:
                if problem.errno != errno.EBADF:  # the listing's own
                    raise


def _hides_processes() -> bool:
    """Whether /proc shows an account only what it may trace: whoever watches our jobs would lose them."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == "/proc" and any("hidepid=" in word and "hidepid=0" not in word for word in words):
            return True
    return False
