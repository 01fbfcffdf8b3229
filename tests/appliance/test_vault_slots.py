"""Key slots: who opens the vault, that nothing else does, and that vault.json cannot be altered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from vault_support import WORDS, sealed_home, unlocked

from appliance.core import files
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import open_home
from appliance.core.sealing import SealBroken
from appliance.core.vaulted import VaultGone
from appliance.security import canonical
from appliance.security.vault import box, slots
from appliance.security.vault.slots import PassphraseWrong

OTHER = "nine quiet lanterns burn"


def test_a_slot_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    assert slots.open_slot(home, "mira", WORDS).master == master
    said = set()
    for name, words in (("mira", WORDS + "."), ("nobody", WORDS), ("mira", "")):
        with pytest.raises(PassphraseWrong) as problem:
            slots.open_slot(home, name, words)
        said.add((problem.value.message, problem.value.hint))
    assert len(said) == 1  # nothing tells which of the two was wrong
    assert master.hex() not in (tmp_path / "vault.json").read_text()


def test_people_come_and_go_and_the_last_one_stays(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    slots.add_slot(home, master, "joe", OTHER)
    assert slots.open_slot(home, "joe", OTHER).master == master
    slots.change_passphrase(home, "joe", OTHER, "a third set of words here")
    with pytest.raises(PassphraseWrong):
        slots.open_slot(home, "joe", OTHER)
    assert slots.open_slot(home, "joe", "a third set of words here").master == master
    slots.remove_slot(home, master, "mira")
    with pytest.raises(PassphraseWrong):
        slots.open_slot(home, "mira", WORDS)
    slots.set_recovery(home, master, bytes(32))
    with pytest.raises(ConfigWrong, match="last"):
        slots.remove_slot(home, master, "joe")
    with pytest.raises(NotFound):
        slots.remove_slot(home, master, "nobody")
    with pytest.raises(ConfigWrong):
        slots.add_slot(home, master, "joe", OTHER)


def test_a_second_vault_and_an_easy_passphrase_are_refused(tmp_path: Path) -> None:
    home, _ = sealed_home(tmp_path / "a")
    with pytest.raises(ConfigWrong):
        slots.create(home, "joe", OTHER)
    with pytest.raises(ConfigWrong):
        slots.create(open_home(tmp_path / "b"), "joe", "short")
    assert not (tmp_path / "b" / "vault.json").exists()


def test_a_slot_holds_the_master_and_no_key_that_signs(tmp_path: Path) -> None:
    """What a person signs with is in the database, under a passphrase that who opens the site has not."""
    home, master = sealed_home(tmp_path)
    slots.add_slot(home, master, "joe", OTHER)
    fields = {"id", "name", "kind", "salt", "cost", "master", "again"}
    assert [set(slot) for slot in box.read(home.path)[0].slots] == [fields, fields]


def test_every_changed_field_is_refused(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    slots.add_slot(home, master, "joe", OTHER)
    slots.set_recovery(home, master, b"r" * 32)
    path = tmp_path / "vault.json"
    whole = json.loads(path.read_bytes())
    changes = 0
    for at, value in _changed(whole):
        path.write_bytes(canonical.encode(value))
        opened = None
        with pytest.raises((PassphraseWrong, SealBroken)):
            opened = slots.open_slot(home, "mira", WORDS)
        assert opened is None, at
        changes += 1
    assert changes >= 25
    path.write_bytes(json.dumps(whole).encode())  # the same, spelled otherwise
    with pytest.raises(SealBroken):
        slots.open_slot(home, "mira", WORDS)


def test_a_slot_of_another_vault_or_place_is_refused(tmp_path: Path) -> None:
    home, _ = sealed_home(tmp_path / "a")
    other, _ = sealed_home(tmp_path / "b")
    ours, theirs = (json.loads((each.path / "vault.json").read_bytes()) for each in (home, other))
    (home.path / "vault.json").write_bytes(canonical.encode({**ours, "slots": theirs["slots"]}))
    with pytest.raises(PassphraseWrong):  # the same passphrase, and still not this vault's
        slots.open_slot(home, "mira", WORDS)


def _changed(whole: dict) -> list[tuple[str, dict]]:
    found = []

    def other(value: object) -> list[object]:
        if isinstance(value, bool):
            return [not value]
        if isinstance(value, int):
            return [value + 1]
        if isinstance(value, str):
            return ["00" if not value else ("1" if value[0] != "1" else "2") + value[1:]]
        return [7] if value is None else []

    def walk(value: object, path: tuple) -> None:
        if isinstance(value, dict):
            for key, held in value.items():
                walk(held, (*path, key))
                found.append((path, key, None))
        elif isinstance(value, list):
            for number, held in enumerate(value):
                walk(held, (*path, number))
            found.append((path, None, None))
        for new in other(value):
            found.append((path[:-1], path[-1], new))

    walk(whole, ())
    made = []
    for path, key, new in found:
        copy = json.loads(json.dumps(whole))
        at = copy
        for step in path:
            at = at[step]
        if key is None:
            if len(at) < 2:
                continue
            at.reverse() if len(path) == 1 else at.clear()
        elif new is None:
            del at[key]
        else:
            at[key] = new
        made.append((f"{path} {key}", copy))
    # Each try costs an Argon2: all of the box and of the slot that is opened, and the other two as a whole.
    return [one for one in made if "slots', 1" not in one[0] and "slots', 2" not in one[0]]


def test_sealed_files_without_their_vault_get_no_new_one(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    with unlocked(home, master):
        files.write_bytes(home.feedback / "a", b"x")
    (tmp_path / "vault.json").unlink()
    with pytest.raises(VaultGone, match="missing"):
        slots.create(home, "mira", WORDS)


def test_a_slot_is_bound_to_its_name_and_cost_also_for_who_has_the_master(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    found, _ = box.read(home.path)
    (slot,) = found.slots
    for change in ({"name": "eve"}, {"id": "00" * 8}, {"kind": "recovery"}):
        box.write(home.path, replace(found, slots=({**slot, **change},)), master)  # with a right MAC
        with pytest.raises(PassphraseWrong):
            slots.open_slot(home, change.get("name", "mira"), WORDS)
