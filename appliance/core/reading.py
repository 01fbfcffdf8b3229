"""Reads what core/files.py wrote, plain or sealed. Elsewhere these are `open`, `read_bytes` and `stat`."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from appliance.core import sealing

_WHOLE = 1 << 20  # bytes that one read of a sealed file decrypts
_local: dict[Path, tuple[object, Path, Path | None]] = {}
_copying = threading.RLock()


def open_reading(path: Path) -> BinaryIO:
    """The plain bytes of a file, as a stream that can seek.

    Raises:
        OSError: there is none. Locked: the home is locked. SealBroken: the file was altered.
    """
    where = sealing.place(path)
    if where is None:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(where.opened(), _WHOLE))


def read_bytes(path: Path) -> bytes:
    """All plain bytes of a file.

    Raises:
        OSError, Locked, SealBroken: as `open_reading`.
    """
    where = sealing.place(path)
    if where is None:
        return path.read_bytes()
    with where.opened() as stream:
        return stream.readall()


def read_text(path: Path) -> str:
    """A UTF-8 file as text.

    Raises:
        OSError, Locked, SealBroken: as `open_reading`. UnicodeDecodeError: it is no UTF-8.
    """
    return read_bytes(path).decode("utf-8")


def size_of(path: Path) -> int:
    """Plain bytes of a file.

    Raises:
        OSError, Locked, SealBroken: as `open_reading`.
    """
    where = sealing.place(path)
    if where is None:
        return path.stat().st_size
    with where.opened() as stream:
        return stream.seek(0, io.SEEK_END)


def local(path: Path) -> Path:
    """A path of the plain file or folder, for libraries that open paths: `path`, or a copy in memory.

    The copy is there until this process ends and is made anew when the file was replaced. It costs its size
    in memory. `path` itself comes back too where nothing is there.

    Raises:
        Locked, SealBroken: as `open_reading`. NoRoom: no folder in memory.
    """
    where = sealing.place(path)
    if where is None or not where.path.exists():
        return path
    with _copying:
        _ = where.sealer  # a copy of before is not given out once the site is locked
        marks = _marks(where.path)
        held = _local.get(where.path)
        if held is not None and held[0] == marks and held[1].exists():
            return held[1]
        copy = _copied(where)
        _local[where.path] = (marks, copy, held[1] if held else None)
        if held is not None and held[2] is not None:  # another thread may be about to open the one before
            shutil.rmtree(held[2].parent, ignore_errors=True)
        return copy


def forget(root: Path) -> None:
    """Remove the copies that `local` made of files in the home `root`: it is being locked."""
    with _copying:
        for path in [path for path in _local if path.is_relative_to(root)]:
            _, copy, before = _local.pop(path)
            for each in filter(None, (copy, before)):
                shutil.rmtree(each.parent, ignore_errors=True)


@contextmanager
def local_path(path: Path) -> Iterator[Path]:
    """As `local`, for as long as the block lasts."""
    where = sealing.place(path)
    if where is None or not where.path.exists():
        yield path
        return
    copy = _copied(where)
    try:
        yield copy
    finally:
        shutil.rmtree(copy.parent, ignore_errors=True)


def copy_plain(source: Path, target: Path) -> None:
    """Copy the plain bytes of `source` to the new file `target`, which lies outside of what is sealed."""
    with open_reading(source) as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, _WHOLE)


def _copied(where: sealing.Place) -> Path:
    folder = where.sealer.scratch()
    copy = folder / where.path.name
    try:
        if where.path.is_dir():
            copy.mkdir(mode=0o700)
            for file in sorted(where.path.rglob("*")):
                below = copy / file.relative_to(where.path)
                if file.is_dir():
                    below.mkdir(mode=0o700, exist_ok=True)
                else:
                    copy_plain(file, below)
        else:
            copy_plain(where.path, copy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return copy


def _marks(path: Path) -> object:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return tuple((str(file), (held := file.stat()).st_ino, held.st_mtime_ns, held.st_size) for file in files)
