"""Where a job may write: its home's folders, the database, a temporary folder, memory, devices. Nowhere else.

So it cannot unlink the key agent's socket and listen in its place, change who the people of the site are
(people.json, vault.json, airgap.json), or the code that is installed. Landlock holds it (jail.py); what a
job may read is not its business.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from appliance.core.db import connect
from appliance.core.home import Home
from appliance.core.sealing import sealed_home
from appliance.core.vaulted import AREAS

_ENDPOINTS = ("keys", "tls")  # where an endpoint keeps its certificate and what its request log is under
_FEDERATIONS = "federations"
_DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/kfd"),
    *("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dri/*", "/dev/dxg"),
)
_CUDA = Path("/dev/nvidiactl")
_MEMORY = Path("/dev/shm")  # noqa: S108 - files that a library opens by name, and what processes share
_held: list[sqlite3.Connection] = []


def of_job(home: Home, kind: str) -> tuple[list[Path], list[int]]:
    """Folders and files in which a job of `kind` may write, and descriptors that it must keep open.

    Temporary files of this process go to one of them from here on.

    Raises:
        NoRoom, Busy, ConfigWrong: as core.db.connect. OSError: no temporary folder.
    """
    areas = AREAS - (set() if kind == "serve" else set(_ENDPOINTS))
    folders = [home.path / area for area in (*sorted(areas), _FEDERATIONS)]
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
    if not sealed_home(home.path):  # there, security/vault/mounted.py has chosen memory
        folders.append(_temporary())
    files, handles = _database(home)
    lock = home.path / "vault-files.lock"  # held while the files are used: security/vault/box.py
    return [*folders, *files, *([lock] if lock.exists() else []), *everywhere()], handles


def everywhere() -> list[Path]:
    """What every jailed process may write: memory that has a name, and harmless devices.

    With an NVIDIA GPU /proc as well: CUDA names its threads there (/proc/PID/task/TID/comm) and does not
    start where it cannot (error 304), and no rule can be given beforehand for the number of a child.
    """
    devices = [found for each in _DEVICES for found in Path("/").glob(each[1:])]
    return [*([_MEMORY] if _MEMORY.is_dir() else []), *devices, *([Path("/proc")] if _CUDA.exists() else [])]


def _database(home: Home) -> tuple[list[Path], list[int]]:
    """The database's files. SQLite makes two of them anew when nobody has it open, which a job may not; so it
    is kept open."""
    _held.append(link := connect(home))
    # SQLite has read TMPDIR when it was loaded, and this holds for all databases of this process.
    link.execute("PRAGMA temp_store_directory = '" + tempfile.gettempdir().replace("'", "''") + "'")
    files = [home.database.with_name(home.database.name + end) for end in ("", "-wal", "-shm")]
    return [file for file in files if file.exists()], _opened(files)


def _opened(files: list[Path]) -> list[int]:
    names, handles = {os.path.realpath(file) for file in files}, []
    for one in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        try:
            if str(Path(f"/proc/self/fd/{one}").readlink()) in names:
                handles.append(one)
        except OSError:  # the listing's own
            continue
    return handles


def _temporary() -> Path:
    """A folder of this account's jobs, in which this process gets its own as its temporary folder.

    One for all, because who may not write in /tmp cannot remove a folder from there.
    """
    place = Path(tempfile.gettempdir()) / f"cloister-jobs-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or place.is_symlink():
        place = Path(tempfile.mkdtemp(prefix="cloister-jobs-"))
    for left in place.iterdir():
        if not Path("/proc", left.name.partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    mine = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=place)
    os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = mine
    tempfile.tempdir = None  # it is looked up again
    atexit.register(_clean, os.getpid(), mine)
    return place


def _clean(pid: int, folder: str) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
