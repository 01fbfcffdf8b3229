"""A new master key for a site: only headers are written, content stays as it is.

    adding     every sealed file gets a second header, under the new master
    (switch)   vault.json: the slots hold the new master, the epoch is one higher
    clearing   the old header of every file is overwritten

Killed at any moment, `rotate` goes on where it was. Copies made before (backups, old blocks of a disk) still
open with the old master: they were readable to whoever had it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    with changing(home, master) as box:
        if pending(box, master) == master:  # a sealing was killed at its end, which is no change of keys
            box, _ = renew(home, box, master, new=master, told=told)
        _, new = renew(home, box, master, new=new_key(), told=told)
    return new


@contextmanager
def changing(home: Home, master: bytes) -> Iterator[Box]:
    """Lock the site and be the only one who works with its files and vault.json, which is checked and given.

    Raises:
        SealBroken: it was altered, or `master` is not the key. Busy: other work goes on.
    """
    unlocking.lock(home)
    files = boxes.hold(home.path, shared=False)
    try:
        with boxes.alone(home.path):
            box, mac = boxes.read(home.path)
            boxes.check(box, mac, master)
            yield box
    finally:
        os.close(files)


def pending(box: Box, master: bytes) -> bytes | None:
    """The master key that a change was about to bring when it was killed; None where there is none.

    Raises:
        SealBroken: vault.json was altered.
    """
    if box.stage != "adding":
        return None
    try:
        return unwrap(derived(master, "next"), box.next, _bound(box))
    except ValueError:
        raise boxes.broken() from None


def renew(
    home: Home, box: Box, master: bytes, *, new: bytes, whole: bool | None = None, told: Told
) -> tuple[Box, bytes]:
    """Raise the epoch: the master key `new`, or that of the change that was begun, in the state `changing`.

    With `master` itself as `new` only the number grows, which an older vault.json does not have. `whole`, if
    given, is what vault.json says from the switch on.
    """
    if box.stage != "clearing":
        box, master = _added(home, box, master, new, box.whole if whole is None else whole, told)
    _cleared(home, box, told)
    box = replace(box, stage="")
    boxes.write(home.path, box, master)
    return box, master


def _added(home: Home, box: Box, old: bytes, new: bytes, whole: bool, told: Told) -> tuple[Box, bytes]:
    if (begun := pending(box, old)) is not None:
        new = begun
    else:
        box = replace(box, stage="adding", next=wrap(derived(old, "next"), new, _bound(box)))
        boxes.write(home.path, box, old)
    before = store_keys(old, vault=box.vault, epoch=box.epoch, whole=True)
    after = store_keys(new, vault=box.vault, epoch=box.epoch + 1, whole=True)
    files = list(sealed_files(home.path))
    for number, (path, name) in enumerate(files):
        add_header(path, name, before, after)
        told(number + 1, 2 * len(files))
    held = slots.rewrapped(box, old, new)
    box = replace(box, epoch=box.epoch + 1, stage="clearing", next="", slots=held, whole=whole)
    boxes.write(home.path, box, new)
    return box, new


def _bound(box: Box) -> dict[str, Any]:
    return {"vault": box.vault, "epoch": box.epoch}


def _cleared(home: Home, box: Box, told: Told) -> None:
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
