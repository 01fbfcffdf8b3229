"""Files that are either whole or not there: tmp + fsync + rename, hashes, free space."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.core.errors import NoRoom


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash leaves the old file or the new one."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_private(path: Path, content: bytes) -> None:
    """As `write_bytes`, for text of people: no other account may read it."""
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
        NoRoom: the disk is full.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
        NoRoom: the disk is full.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    """Turn the system's "no space left" and "quota exceeded" into NoRoom."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(folder) from problem
