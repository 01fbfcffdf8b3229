"""Seals a home that has plain files: one after the other, each whole or not at all, resumable.

The blocks that held the plain files are free afterwards, not erased: on an SSD, a copy-on-write or journaling
file system nothing here can erase them. A disk that was encrypted from the start (LUKS) has no such rest.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.sealing import SealBroken
from appliance.core.vaulted import AREAS, is_open
from appliance.security.vault import opened, rotation
from appliance.security.vault.keys import StoreKeys, store_keys
from appliance.security.vault.mounted import is_sealed
from appliance.security.vault.sealed import open_sealed, seal

REST = (
    "The plain files were replaced, but their old blocks may still be on the disk. Erase the free space of a"
    " hard disk; of an SSD only a disk that was encrypted before holds no rest."
)


def seal_existing(
    home: Home, master: bytes, *, told: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Seal every plain file of a home that has a vault; returns how many there were.

    The site is locked afterwards. Run again after a crash, it goes on. From its end on a plain file in the
    sealed folders is refused, here too, and so is vault.json as it was before: the key epoch is one higher.

    Raises:
        SealBroken: vault.json was altered, `master` is not its key, or a home that was sealed whole has a
            plain file. Busy: other work goes on. ConfigWrong: a change of keys was not finished. NoRoom.
    """
    with rotation.changing(home, master) as box:
        if box.stage == "clearing":
            box, _ = rotation.renew(home, box, master, new=master, told=_quiet)
        if rotation.pending(box, master) not in (None, master):
            raise ConfigWrong(
                "A change of the site's keys was not finished.", "Run `cloister vault rotate` first."
            )
        keys = store_keys(master, vault=box.vault, epoch=box.epoch, whole=box.whole)
        _drop_work(home.path)
        plain = list(_plain(home.path))
        if box.whole and plain:
            raise SealBroken(
                f"{plain[0].relative_to(home.path).as_posix()} is plain, and everything here was sealed.",
                "Somebody put it there, or replaced the sealed one: take it away, or restore a backup.",
            )
        for number, path in enumerate(plain):
            _seal_one(home.path, path, keys)
            told(number + 1, len(plain))
        if not box.whole:  # the number grows too, or the vault.json of before would still open all
            rotation.renew(home, box, master, new=master, whole=True, told=_quiet)
    opened.sweep()
    return len(plain)


def _quiet(done: int, total: int) -> None:
    """Headers are written in a moment."""


def _plain(root: Path) -> Iterator[Path]:
    for area in sorted(AREAS):
        for path in sorted((root / area).rglob("*")):
            if path.is_symlink() or not path.is_file() or is_open(path.relative_to(root)):
                continue
            if not is_sealed(path):
                yield path


def _seal_one(root: Path, path: Path, keys: StoreKeys) -> None:
    """The sealed draft is read back before it takes the place of the only copy."""
    name = path.relative_to(root).as_posix()
    handle, made = tempfile.mkstemp(prefix=".sealing-", suffix=".tmp", dir=path.parent)
    os.close(handle)
    draft = Path(made)
    draft.unlink()
    try:
        with path.open("rb", buffering=0) as source:
            seal(cast(BinaryIO, source), draft, keys=keys, name=name)
        with open_sealed(draft, keys=keys, name=name) as sealed, path.open("rb") as source:
            _compare(sealed, source)
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _compare(sealed: io.RawIOBase, source: io.BufferedReader) -> None:
    while True:
        ours, theirs = sealed.read(1 << 20), source.read(1 << 20)
        if ours != theirs:
            raise OSError("the sealed file does not read back as what it was made of")
        if not theirs:
            return


def _drop_work(root: Path) -> None:
    """Drafts of jobs and of earlier crashes are made anew, not sealed."""
    for left in [
        *root.glob("jobs/*/work"),
        *root.glob("datasets/.*.draft"),
        *root.glob("bundles/.quarantine-*"),
    ]:
        shutil.rmtree(left, ignore_errors=True)
    for draft in root.glob("documents/*/draft-*"):
        draft.unlink(missing_ok=True)
    for area in AREAS:
        for left in (root / area).rglob(".*.tmp"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
