"""A new master key for a site: only headers are written, content stays as it is.

    adding     every sealed file gets a second header, under the new master
    (switch)   vault.json: the slots hold the new master, the epoch is one higher
    clearing   the old header of every file is overwritten

Killed at any moment, `rotate` goes on where it was. Copies made before (backups, old blocks of a disk) still
open with the old master: they were readable to whoever had it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from appliance.core.home import Home
from appliance.core.sealing import SealBroken
from appliance.security.vault import box as boxes
from appliance.security.vault import header as heads
from appliance.security.vault import slots, unlocking
from appliance.security.vault.box import Box, sealed_files
from appliance.security.vault.keys import StoreKeys, derived, new_key, store_keys, unwrap, wrap

Told = Callable[[int, int], None]


def rotate(home: Home, master: bytes, *, told: Told = lambda done, total: None) -> bytes:
    """Give the site a new master key, or finish a change that was begun; returns the new one.

    The site is locked afterwards. `told(done, total)` counts files, twice.

    Raises:
        SealBroken: vault.json or a file was altered, or `master` is not the key. Busy: other work goes on.
    """
    unlocking.lock(home)
    files = boxes.hold(home.path, shared=False)
    try:
        with boxes.alone(home.path):
            box, mac = boxes.read(home.path)
            boxes.check(box, mac, master)
            if box.stage != "clearing":
                box, master = _added(home, box, master, told)
            _cleared(home, box, master, told)
            boxes.write(home.path, replace(box, stage=""), master)
    finally:
        os.close(files)
    return master


def _added(home: Home, box: Box, old: bytes, told: Told) -> tuple[Box, bytes]:
    bound = {"vault": box.vault, "epoch": box.epoch}
    if box.stage == "":
        new = new_key()
        box = replace(box, stage="adding", next=wrap(derived(old, "next"), new, bound))
        boxes.write(home.path, box, old)
    else:
        try:
            new = unwrap(derived(old, "next"), box.next, bound)
        except ValueError:
            raise boxes.broken() from None
    before = store_keys(old, vault=box.vault, epoch=box.epoch, whole=True)
    after = store_keys(new, vault=box.vault, epoch=box.epoch + 1, whole=True)
    files = list(sealed_files(home.path))
    for number, (path, name) in enumerate(files):
        add_header(path, name, before, after)
        told(number + 1, 2 * len(files))
    after_box = replace(
        box, epoch=box.epoch + 1, stage="clearing", next="", slots=slots.rewrapped(box, old, new)
    )
    boxes.write(home.path, after_box, new)
    return after_box, new


def _cleared(home: Home, box: Box, master: bytes, told: Told) -> None:
    files = list(sealed_files(home.path))
    for number, (path, _) in enumerate(files):
        clear_headers(path, box.epoch)
        told(len(files) + number + 1, 2 * len(files))


def add_header(path: Path, name: str, before: StoreKeys, after: StoreKeys) -> None:
    """Write the header of the next epoch into the free place of a file, durably; once is enough.

    A draft, or another file that the old keys do not open under its name, is left as it is.

    Raises:
        SealBroken: the file has no whole header.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = _headers(handle, name)
        if any(head is not None and _opens(head, after, name) for head in found):
            return
        number = next((at for at in (0, 1) if (head := found[at]) and head.epoch == before.epoch), None)
        if number is None:
            if not any(found):
                raise SealBroken(f"The sealed file {name} is damaged.", "Restore it from a backup.")
            return
        head = found[number]
        assert head is not None  # noqa: S101
        try:
            secret = heads.file_key(head, before.stores[head.store], vault=before.vault, name=name)
        except (ValueError, KeyError):
            return
        head = replace(head, epoch=after.epoch)
        head = heads.with_key(head, after.stores[head.store], secret, vault=after.vault, name=name)
        os.pwrite(handle, heads.encode(head), heads.PLACES[1 - number])
        os.fsync(handle)
    finally:
        os.close(handle)


def _opens(head: heads.Header, keys: StoreKeys, name: str) -> bool:
    """Whether `head` is of these keys: one that only says so would have the right one cleared."""
    if head.epoch != keys.epoch or head.store not in keys.stores:
        return False
    try:
        heads.file_key(head, keys.stores[head.store], vault=keys.vault, name=name)
    except ValueError:
        return False
    return True


def clear_headers(path: Path, epoch: int) -> None:
    """Overwrite every header that is not of `epoch`, durably; a file without one of it is left as it is."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        content = os.pread(handle, heads.LENGTH, 0)
        found = heads.read_headers(content)
        if not any(head is not None and head.epoch == epoch for head in found):
            return
        for at, head in zip(heads.PLACES, found, strict=True):
            if (head is None or head.epoch != epoch) and any(content[at : at + heads.ROOM]):
                os.pwrite(handle, bytes(heads.ROOM), at)
        os.fsync(handle)
    except ValueError:
        return
    finally:
        os.close(handle)


def _headers(handle: int, name: str) -> tuple[heads.Header | None, heads.Header | None]:
    try:
        return heads.read_headers(os.pread(handle, heads.LENGTH, 0))
    except ValueError:
        raise SealBroken(f"The sealed file {name} is damaged.", "Restore it from a backup.") from None
