"""Plain content in memory only: an anonymous file for one reader, a private tmpfs folder for libraries.

Memory can still be written to a swap partition; `swap` says whether this machine's could.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.core.errors import NoRoom
from appliance.core.files import telling_full
from appliance.core.reading import open_reading

_TMPFS, _RAMFS = 0x01021994, 0x858458F6  # f_type, statfs(2)
_CHUNK = 1 << 20
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_folders: dict[int, Path] = {}  # by process, so that a fork does not clean up its parent's


@contextmanager
def in_memory(path: Path) -> Iterator[Path]:
    """/proc/self/fd/N of an anonymous file with the plain content of `path`, which nothing can change.

    A child opens the same path when N is among its `pass_fds`. Costs the file's size in memory.

    Raises:
        OSError, Locked, SealBroken: as core.reading.open_reading. NoRoom: memory is short.
    """
    handle = memory_file(path)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def memory_file(path: Path) -> int:
    """As `in_memory`: the descriptor, for the caller to close."""
    handle = os.memfd_create(path.name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open_reading(path) as stream, telling_full(Path("/dev/shm")):  # noqa: S108
            while part := stream.read(_CHUNK):
                left = memoryview(part)
                while left:
                    left = left[os.write(handle, left) :]
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(handle, 0, os.SEEK_SET)
    except BaseException:
        os.close(handle)
        raise
    return handle


def scratch() -> Path:
    """A new private folder in memory; it is removed when this process ends, or by `sweep` if it was killed.

    Raises:
        NoRoom: this machine has no tmpfs that this account may write.
    """
    mine = _folders.get(os.getpid())
    if mine is None or not mine.is_dir():
        mine = _make_mine()
        _folders[os.getpid()] = mine
        atexit.register(_clean, os.getpid())
        sweep()
    return Path(tempfile.mkdtemp(dir=mine))


def sweep() -> int:
    """Remove what killed processes of this account left in memory; returns how many folders."""
    count = 0
    with suppress(NoRoom):
        for left in _ours().iterdir():
            pid, _, started = left.name.partition("-")
            if not pid.isdigit() or _started(int(pid)) != started:
                shutil.rmtree(left, ignore_errors=True)
                count += 1
    return count


def swap() -> list[str]:
    """The places, if any, where this machine's memory could reach a disk in plain text.

    zram stays in memory, and dm-crypt writes nothing plain (/proc/swaps, /sys/block/dm-N/dm/uuid).
    """
    try:
        lines = Path("/proc/swaps").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    return [device for line in lines if not _harmless(device := line.split()[0])]


def is_memory(folder: Path) -> bool:
    """Whether a folder's files lie in memory (statfs: tmpfs or ramfs)."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(folder), held):
        return False
    kind = int.from_bytes(held.raw[: ctypes.sizeof(ctypes.c_long)], "little")
    return kind in (_TMPFS, _RAMFS)


def _harmless(device: str) -> bool:
    name = Path(os.path.realpath(device)).name
    if name.startswith("zram"):
        return True
    with suppress(OSError):
        return Path(f"/sys/block/{name}/dm/uuid").read_text(encoding="ascii").startswith("CRYPT-")
    return False


def _ours() -> Path:
    """This account's folder on a tmpfs."""
    for place in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")):  # noqa: S108
        if not place or not is_memory(Path(place)):
            continue
        folder = Path(place) / f"cloister-{os.getuid()}"
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if found.st_uid == os.getuid() and not found.st_mode & 0o077 and folder.is_dir():
                return folder
    raise NoRoom(
        "This machine has no folder in memory that this account may write.",
        "A sealed site needs a tmpfs: mount one at /dev/shm.",
    )


def _make_mine() -> Path:
    folder = _ours() / f"{os.getpid()}-{_started(os.getpid())}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _started(pid: int) -> str:
    """When a process began (field 22 of /proc/PID/stat): a process id alone is given again."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return content.rpartition(")")[2].split()[19]


def _clean(pid: int) -> None:
    if os.getpid() == pid and pid in _folders:
        shutil.rmtree(_folders.pop(pid), ignore_errors=True)
