"""Who may open the vault: one slot for each person, and one for the recovery shares.

    passphrase --Argon2id--> K --HKDF--> K1 (the master key is under it)

The master key of the slots also holds each K1, so that a change of the master reaches the slots of people
who are not there. Every wrapped value is bound to the whole header of its slot. What a person signs with is
not here: it stands in the table `people`, under the same passphrase and a salt of its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import ApplianceError, ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.core.vaulted import AREAS, gone, is_open
from appliance.security import passphrase
from appliance.security.vault import box as boxes
from appliance.security.vault.box import Box, sealed_files
from appliance.security.vault.keys import KEY, derived, new_key, unwrap, wrap

PASSPHRASE, RECOVERY = "passphrase", "recovery"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
HEAD = ("id", "name", "kind", "salt", "cost")


class PassphraseWrong(ApplianceError):
    """A person and passphrase that do not belong together; which of the two is not said."""

    code = "passphrase-wrong"
    exit_code = 12


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened slot."""

    name: str
    master: bytes

    def __repr__(self) -> str:
        return f"Opened(name={self.name!r})"


def create(home: Home, name: str, words: str, *, cost: passphrase.Cost | None = None) -> bytes:
    """Make the vault of a home, with the slot of its first person; returns the master key.

    A home that holds files already stays plain until `existing.seal_existing` has gone through it.

    Raises:
        ConfigWrong: there is a vault, the name cannot be used, or the passphrase is too easy.
        VaultGone: there was one.
    """
    _check_name(name)
    passphrase.check_new(words)
    with boxes.alone(home.path):
        if boxes.exists(home.path):
            raise ConfigWrong("This home has a vault.", "See `cloister vault status`.")
        if any(True for _ in sealed_files(home.path)):
            raise gone("is missing")
        master, vault = new_key(), os.urandom(16).hex()
        slot = _new(vault, 1, master, name=name, words=words, cost=cost)
        boxes.write(home.path, Box(vault=vault, epoch=1, whole=_empty(home.path), slots=(slot,)), master)
    return master


def open_slot(home: Home, name: str, words: str) -> Opened:
    """The master key; the time does not depend on whether the person is known.

    Raises:
        PassphraseWrong: this person and passphrase do not open it. SealBroken: vault.json was altered.
        NotFound: the home has no vault.
    """
    box, mac = boxes.read(home.path)
    slot = _slot(box, name)
    if slot is None or slot.get("kind") != PASSPHRASE:
        known = next((one for one in box.slots if one.get("kind") == PASSPHRASE), None)
        if known is not None:  # what a person who is known would cost
            _stretched(known, words)
        raise wrong()
    opened = _open(box, slot, _stretched(slot, words))
    boxes.check(box, mac, opened.master)
    return opened


def people(home: Home) -> list[dict[str, str]]:
    """The slots, by name and kind. Not checked: only who opens the vault can tell an altered list.

    Raises:
        NotFound: the home has no vault. SealBroken: vault.json is damaged.
    """
    box, _ = boxes.read(home.path)
    return [{"name": str(slot.get("name")), "kind": str(slot.get("kind"))} for slot in box.slots]


def add_slot(
    home: Home,
    master: bytes,
    name: str,
    words: str,
    *,
    cost: passphrase.Cost | None = None,
) -> None:
    """A slot for one more person.

    Raises:
        ConfigWrong: the name is taken or cannot be used, or the passphrase is too easy.
    """
    _check_name(name)
    passphrase.check_new(words)
    with boxes.alone(home.path):
        box = _box(home, master)
        if _slot(box, name) is not None:
            raise ConfigWrong(f"{name} can open this site already.", "Choose another name.")
        slot = _new(box.vault, box.epoch, master, name=name, words=words, cost=cost)
        boxes.changed(home.path, master, slots=(*box.slots, slot))


def remove_slot(home: Home, master: bytes, name: str) -> None:
    """Take a person's slot away. What they knew, they know: rotate the keys afterwards.

    Raises:
        NotFound: no such slot. ConfigWrong: it is the last one that a passphrase opens.
    """
    with boxes.alone(home.path):
        box = _box(home, master)
        if _slot(box, name) is None:
            raise NotFound(f"{name} has no slot in this vault.", "See `cloister vault status`.")
        left = tuple(slot for slot in box.slots if slot["name"] != name)
        if not any(slot["kind"] == PASSPHRASE for slot in left):
            raise ConfigWrong(f"{name} is the last who can open this site.", "Add another person first.")
        boxes.changed(home.path, master, slots=left)


def change_passphrase(
    home: Home, name: str, old: str, new: str, *, cost: passphrase.Cost | None = None
) -> None:
    """Another passphrase for a slot.

    Raises:
        PassphraseWrong: the old one is not it. ConfigWrong: the new one is too easy.
    """
    passphrase.check_new(new)
    with boxes.alone(home.path):
        opened = open_slot(home, name, old)
        _replace(home, opened, words=new, cost=cost)


def reset_passphrase(
    home: Home, master: bytes, name: str, words: str, *, cost: passphrase.Cost | None = None
) -> None:
    """A new slot in place of a person's, after a recovery.

    Raises:
        NotFound: no such slot. ConfigWrong: the passphrase is too easy.
    """
    passphrase.check_new(words)
    with boxes.alone(home.path):
        if _slot(_box(home, master), name) is None:
            raise NotFound(f"{name} has no slot in this vault.", "See `cloister vault status`.")
        _replace(home, Opened(name=name, master=master), words=words, cost=cost)


def set_recovery(home: Home, master: bytes, key: bytes) -> None:
    """Make `key` the recovery key, in place of the one there was, whose shares open nothing any more."""
    with boxes.alone(home.path):
        box = _box(home, master)
        head = {"id": os.urandom(8).hex(), "name": RECOVERY, "kind": RECOVERY, "salt": "", "cost": None}
        slot = _wrapped(box.vault, box.epoch, master, head, derived(key, "slot-master"))
        kept = tuple(one for one in box.slots if one["kind"] != RECOVERY)
        boxes.changed(home.path, master, slots=(*kept, slot))


def open_recovery(home: Home, key: bytes) -> bytes:
    """The master key, by the recovery key.

    Raises:
        PassphraseWrong: it is not it, or there is none.
    """
    box, mac = boxes.read(home.path)
    slot = next((one for one in box.slots if one.get("kind") == RECOVERY), None)
    if slot is None:
        raise wrong()
    opened = _open(box, slot, key)
    boxes.check(box, mac, opened.master)
    return opened.master


def rewrapped(box: Box, old: bytes, new: bytes) -> tuple[dict[str, Any], ...]:
    """The slots of `box`, which hold the master `old`, holding `new` in the next epoch.

    Raises:
        SealBroken: a slot was altered.
    """
    slots = []
    for slot in box.slots:
        try:
            first = unwrap(derived(old, "slot"), slot["again"], _bound(box.vault, slot, "again", box.epoch))
        except (ValueError, KeyError):
            raise boxes.broken() from None
        head = {field: slot[field] for field in HEAD}
        slots.append(_wrapped(box.vault, box.epoch + 1, new, head, first))
    return tuple(slots)


def wrong() -> PassphraseWrong:
    """The one error for whatever does not open."""
    return PassphraseWrong("This name and passphrase do not open the site.", "Check both and try again.")


def _open(box: Box, slot: dict[str, Any], key: bytes) -> Opened:
    try:
        first = derived(key, "slot-master")
        master = unwrap(first, slot["master"], _bound(box.vault, slot, "master", box.epoch))
    except (ValueError, KeyError, TypeError):
        raise wrong() from None
    if len(master) != KEY:
        raise wrong()
    return Opened(name=slot["name"], master=master)


def _stretched(slot: dict[str, Any], words: str) -> bytes:
    try:
        cost, salt = passphrase.read_cost(slot["cost"]), bytes.fromhex(slot["salt"])
        if len(salt) != 16:
            raise ValueError("a salt of another length")
    except (ValueError, KeyError, TypeError):
        raise boxes.broken() from None
    return passphrase.stretch(words, salt=salt, cost=cost)


def _new(
    vault: str,
    epoch: int,
    master: bytes,
    *,
    name: str,
    words: str,
    cost: passphrase.Cost | None,
) -> dict[str, Any]:
    head, first = prepared(name, words, cost=cost)
    return _wrapped(vault, epoch, master, head, first)


def prepared(name: str, words: str, *, cost: passphrase.Cost | None = None) -> tuple[dict[str, Any], bytes]:
    """The head of a new slot and its K1: what can be made of a passphrase without the master key."""
    cost, salt = cost or passphrase.Cost(), passphrase.new_salt()
    head = {
        "id": os.urandom(8).hex(),
        "name": name,
        "kind": PASSPHRASE,
        "salt": salt.hex(),
        "cost": cost.to_json(),
    }
    return head, derived(passphrase.stretch(words, salt=salt, cost=cost), "slot-master")


def put(home: Home, master: bytes, head: dict[str, Any], first: bytes) -> None:
    """Enter the slot that `prepared` made, in place of the one of that name if there is one."""
    with boxes.alone(home.path):
        box = _box(home, master)
        kept = tuple(slot for slot in box.slots if slot["name"] != head["name"])
        slot = _wrapped(box.vault, box.epoch, master, head, first)
        boxes.changed(home.path, master, slots=(*kept, slot))


def _wrapped(vault: str, epoch: int, master: bytes, head: dict[str, Any], first: bytes) -> dict[str, Any]:
    """The slot: `head`, the master key under K1 (`first`), and K1 under the master key."""
    return {
        **head,
        "master": wrap(first, master, _bound(vault, head, "master", epoch)),
        "again": wrap(derived(master, "slot"), first, _bound(vault, head, "again", epoch)),
    }


def _bound(vault: str, slot: dict[str, Any], part: str, epoch: int) -> dict[str, Any]:
    return {**{field: slot[field] for field in HEAD}, "vault": vault, "part": part, "epoch": epoch}


def _replace(home: Home, opened: Opened, *, words: str, cost: passphrase.Cost | None = None) -> None:
    box = _box(home, opened.master)
    slot = _new(box.vault, box.epoch, opened.master, name=opened.name, words=words, cost=cost)
    slots = tuple(slot if one["name"] == opened.name else one for one in box.slots)
    boxes.changed(home.path, opened.master, slots=slots)


def _box(home: Home, master: bytes) -> Box:
    box, mac = boxes.read(home.path)
    boxes.check(box, mac, master)
    if box.stage:
        raise ConfigWrong(
            "A change of the site's keys was not finished.", "Run `cloister vault rotate` first."
        )
    return box


def _slot(box: Box, name: str) -> dict[str, Any] | None:
    return next((slot for slot in box.slots if slot.get("name") == name), None)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name == RECOVERY:
        raise ConfigWrong(
            "A person's name has 1 to 64 letters, digits, '-', '_', '.' or '@', and is not 'recovery'.",
            "Choose another name.",
        )


def _empty(root: Path) -> bool:
    there = (file for area in AREAS for file in (root / area).rglob("*"))
    return not any(file.is_file() and not is_open(file.relative_to(root)) for file in there)
