"""Files that are either whole or not there: tmp + fsync + rename, hashes, free space.

In a home with a vault (core/sealing.py) the same functions write sealed files, with drafts in memory;
core/reading.py reads them back. Hashes and sizes are those of the plain content.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from appliance.core import sealing
from appliance.core.errors import NoRoom
from appliance.core.reading import open_reading
from appliance.core.vaulted import AREAS, MAGIC

_HEAD = 4096  # bytes of a sealed file in which its own key lies, wrapped: docs/sealed-format.md
_PART = 1 << 20


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash leaves the old file or the new one."""
    if where := sealing.place(path):
        with telling_full(path.parent):
            where.seal(io.BytesIO(content))
        return
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_private(path: Path, content: bytes) -> None:
    """As `write_bytes`, for text of people: no other account may read it."""
    if sealing.place(path):
        write_bytes(path, content)
        return
    with replacing(path) as draft:
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a draft path beside `path`; on success fsync and rename it, on error remove it.

    Raises:
        NoRoom: the disk is full. Locked: the home is sealed and locked.
    """
    if where := sealing.place(path):
        with _in_memory(where) as folder:
            draft = folder / path.name
            yield draft
            with telling_full(path.parent), draft.open("rb", buffering=0) as stream:
                where.seal(cast(BinaryIO, stream))
        return
    draft = sealing.draft_of(path)
    try:
        with telling_full(path.parent):
            yield draft
            sync(draft)
            draft.replace(path)
            sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a draft folder beside `path`; on success rename it over, on error remove it.

    Raises:
        NoRoom: the disk is full. Locked: the home is sealed and locked.
    """
    if where := sealing.place(path):
        with _in_memory(where) as folder:
            draft = folder / path.name
            draft.mkdir(mode=0o700)
            yield draft
            with telling_full(path.parent):
                where.seal_folder(draft)
        return
    draft = sealing.draft_of(path)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with telling_full(path.parent):
            draft.mkdir(mode=0o700, parents=True)
            yield draft
            for file in draft.rglob("*"):
                sync(file)
            sync(draft)
            if path.exists():
                shutil.rmtree(path)
            draft.rename(path)
            sync(path.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def _in_memory(where: sealing.Place) -> Iterator[Path]:
    folder = where.sealer.scratch()
    try:
        with telling_full(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path, *, older: float = 3600.0) -> int:
    """Remove the drafts that killed processes left in the home in `root`; how many there were.

    A draft is left alone while its process lives, and for `older` seconds: machines may share the home.
    """
    count, now = 0, time.time()
    for area in sorted(AREAS):
        for draft in (root / area).rglob(".*.tmp"):
            writer = draft.name.split(".")[-2]
            try:
                if not writer.isdigit() or Path(f"/proc/{writer}").exists():
                    continue
                if now - draft.lstat().st_mtime < older:
                    continue
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
                count += 1
            except OSError:  # somebody else removed it
                continue
    return count


def move_in(draft: Path, path: Path) -> None:
    """Make the finished file or folder `draft` the one at `path`, durably; it is gone afterwards.

    Both lie on one disk, or `path` is sealed. What is at `path` is replaced.
    """
    if where := sealing.place(path):
        with telling_full(path.parent):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if draft.is_dir():
                where.seal_folder(draft)
                shutil.rmtree(draft)
            else:
                with draft.open("rb", buffering=0) as stream:
                    where.seal(cast(BinaryIO, stream))
                draft.unlink()
        return
    if draft.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        for file in draft.rglob("*"):
            sync(file)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def shred(path: Path) -> None:
    """Delete a file or folder and first overwrite what reads it: of a sealed file the head with its key, a
    plain one whole.

    Flash, snapshots and copies may still hold the old blocks; of a sealed file they need the old head, too.
    What has another name as well is not overwritten. Cut off, it can be done again.
    """
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    for file in files:
        if not file.is_symlink() and file.stat().st_nlink == 1:
            _overwrite(file)
        file.unlink()
    if path.is_dir():
        shutil.rmtree(path)
    sync(path.parent)


def _overwrite(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b", buffering=0) as stream:
        left = path.stat().st_size
        if stream.read(len(MAGIC)) == MAGIC:
            left = min(left, _HEAD)
        stream.seek(0)
        while left > 0:
            left -= stream.write(bytes(min(left, _PART)))
        os.fsync(stream.fileno())


def work_folder(path: Path) -> Path:
    """An empty folder for what is being worked on: `path` itself, or one in memory where that is sealed."""
    if where := sealing.place(path):
        return where.sealer.scratch()
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    return path


def temporary_place(root: Path) -> Path:
    """Where the home in `root` has temporary folders made: in itself, or in memory if it has a vault.

    Raises:
        Locked: it has one and is locked.
    """
    if not sealing.sealed_home(root):
        return root
    return sealing.Place(root=root.absolute(), path=root.absolute()).sealer.scratch()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; of the plain ones where it is sealed."""
    with open_reading(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256_folder(path: Path) -> str:
    """SHA-256 over the sorted relative names and file hashes of a folder, in hex."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def need_room(folder: Path, size: int) -> None:
    """Check that `folder`'s disk can take `size` bytes more.

    Raises:
        NoRoom: it cannot.
    """
    free = free_space(folder)
    if free < size:
        raise NoRoom(
            f"{folder} has {free / 1e6:.0f} MB free; this step needs {size / 1e6:.0f} MB.",
            "Free some space, or use another disk with --home DIR.",
        )


def free_space(folder: Path) -> int:
    """Bytes that this account can still write on `folder`'s disk."""
    return shutil.disk_usage(folder).free


def disk_full(folder: Path) -> NoRoom:
    """The error for a disk that took no more."""
    return NoRoom(
        f"There is no space left on the disk of {folder}.",
        "Free some space and try again; nothing that was kept before is lost.",
    )


@contextmanager
def telling_full(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left", "quota exceeded" and "file too large" into NoRoom."""
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.EFBIG:
            raise NoRoom(
                f"The disk of {folder} takes no file as large as this one.",
                "FAT takes 4 GB: use another disk. Or this account has a limit: ulimit -f.",
            ) from problem
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(folder) from problem
