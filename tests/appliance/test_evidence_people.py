"""Probes of people and of data at rest: each says both, for the reason it is there for."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import people_support as site
import pytest
from evidence_support import ask, look, now, outcome
from vault_support import WORDS, agent, sealed_home, unlocked

from appliance.core.db import transaction
from appliance.core.errors import NotAllowed
from appliance.core.files import write_bytes
from appliance.core.home import Home
from appliance.ops.evidence import probes_people, probes_vault, shape
from appliance.ops.evidence.probes_vault import encrypted_beneath
from appliance.security import audit
from appliance.security.people import breakglass, persons, roles
from appliance.security.vault import box, opened, slots
from appliance.security.vault.keys import new_key

YES, NO, NONE = shape.SUPPORTS, shape.LACKS, shape.ABSENT


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def test_single_person_mode_supports_nothing_that_needs_two(home: Home) -> None:
    for name in ("roles", "unique ids", "two people"):
        found = ask(home, name)
        assert found.outcome == NO and "ingle-person mode" in found.text, name
    assert outcome(home, "lockout") == outcome(home, "passphrase") == NO
    assert outcome(home, "emergency") == NONE


def test_people_with_roles(st_anna: Home) -> None:
    for name in ("roles", "unique ids", "two people", "emergency", "lockout", "passphrase"):
        assert outcome(st_anna, name) == YES, name
    found = ask(st_anna, "roles")
    assert found.figures["asked"] == len(roles.TABLE) * 5
    assert found.figures["people"] == dict.fromkeys(roles.ROLES, 1)


def test_a_role_that_may_more_than_the_table_says(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = probes_people.guard.may
    monkeypatch.setattr(
        probes_people.guard,
        "may",
        lambda person, action, **more: None if action == "key.new" else honest(person, action, **more),
    )
    found = ask(st_anna, "roles")
    assert found.outcome == NO and "operator: key.new" in found.text


def test_a_door_that_lets_nobody_in_through(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_people.guard, "why_not", lambda *_: None)
    assert "site.read" in ask(st_anna, "roles").text


def test_an_export_without_the_officer(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    row = roles.Right(action="x", words="x", may=frozenset({roles.SECURITY}), two=True)
    monkeypatch.setitem(roles.TABLE, "bundle.export", row)
    assert outcome(st_anna, "two people") == NO
    assert "bundle.export" in ask(st_anna, "roles").text  # a security admin may take nothing out


def test_a_person_without_a_key_of_their_own(st_anna: Home) -> None:
    site.sql(st_anna, "DELETE FROM people WHERE name = 'ana'")
    found = ask(st_anna, "unique ids")
    assert found.outcome == NO and "ana" in found.text


def test_an_emergency_that_nobody_reviewed(st_anna: Home) -> None:
    case = breakglass.start(st_anna, site.signer("aude"), "the night shift has no operator", minutes=1)
    assert "1 of them running now" in ask(st_anna, "emergency").text
    later = shape.Look(st_anna, now() + timedelta(minutes=2))
    found = probes_people.emergency(later)
    assert found.outcome == NO and f"{case.id} by aude" in found.text
    assert "night shift" not in found.text  # a reason is somebody's own words
    with transaction(st_anna) as link:
        link.execute("UPDATE emergencies SET ended = '2026'")
    breakglass.review(st_anna, site.signer("olga"), case.id, now=now() + timedelta(minutes=2))
    assert probes_people.emergency(later).outcome == YES


def test_wrong_passphrases(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nobody is locked now" in ask(st_anna, "lockout").text
    monkeypatch.setattr(persons, "unseal", lambda *_: None)
    for _ in range(persons.FREE_TRIES):
        with pytest.raises(NotAllowed):
            persons.sign_in(st_anna, "ana", "wrong words of hers", now=now())
    assert "locked now: ana" in ask(st_anna, "lockout").text
    monkeypatch.setattr(probes_people, "wait_after", lambda failed: timedelta(0))
    assert outcome(st_anna, "lockout") == NO


def test_a_passphrase_that_is_cheap_to_guess(st_anna: Home) -> None:
    site.sql(st_anna, "UPDATE people SET sealed = replace(sealed, '65536', '1024') WHERE name = 'sam'")
    found = ask(st_anna, "passphrase")
    assert found.outcome == NO and "sam's key" in found.text and "olga" not in found.text


def test_sealed_and_not(home: Home, tmp_path: Path) -> None:
    (home.feedback / "a.json").write_text("words")
    for name in ("sealed", "erase by key", "idle lock"):
        assert outcome(home, name) == NO, name
    assert outcome(home, "recovery") == NONE
    vault, master = sealed_home(tmp_path / "sealed")
    assert [outcome(vault, name) for name in ("sealed", "erase by key", "idle lock")] == [YES] * 3
    assert outcome(vault, "lockout") == outcome(vault, "passphrase") == YES
    with unlocked(vault, master):
        write_bytes(vault.feedback / "a.json", b"words")
    assert ask(vault, "sealed").figures == {"files": 1, "plain": 0, "key_epoch": 1}
    (vault.feedback / "b.json").write_text("words that nobody sealed")
    assert ask(vault, "sealed").figures == {"files": 2, "plain": 1}
    assert outcome(vault, "sealed") == NO


def test_erasing_by_keys_needs_all_files_sealed(tmp_path: Path) -> None:
    vault, master = sealed_home(tmp_path / "sealed")
    box.changed(vault.path, master, whole=False)
    assert outcome(vault, "erase by key") == NO


def test_how_long_until_it_locks(tmp_path: Path) -> None:
    vault, master = sealed_home(tmp_path / "sealed")
    assert ask(vault, "idle lock").figures == {"minutes": 10, "locked": True}
    with agent(vault, master, minutes=25):
        assert ask(vault, "idle lock").figures == {"minutes": 25, "locked": False}
    with agent(vault, master, minutes=500):
        assert outcome(vault, "idle lock") == NO


def test_recovery_shares(tmp_path: Path) -> None:
    vault, master = sealed_home(tmp_path / "sealed")
    assert outcome(vault, "recovery") == NO
    slots.set_recovery(vault, master, new_key())
    assert "never tried here" in ask(vault, "recovery").text
    with transaction(vault) as link:
        audit.record(link, who="mira", what="vault.recover", target="mira")
    assert ask(vault, "recovery").figures == {"used": 1}
    assert WORDS not in str(ask(vault, "recovery"))


def test_swap(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "swap", lambda: [])
    assert outcome(home, "swap") == YES
    monkeypatch.setattr(opened, "swap", lambda: ["/dev/sda3"])
    assert "/dev/sda3" in ask(home, "swap").text and outcome(home, "swap") == NO


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A /sys with disks: sda plain, dm-0 (LUKS) on sda, dm-1 (LVM) on dm-0, md0 on dm-0 and sda."""
    blocks = tmp_path / "sys" / "devices"
    below: dict[str, tuple[str, ...]] = {
        "sda": (),
        "dm-0": ("sda",),
        "dm-1": ("dm-0",),
        "md0": ("dm-0", "sda"),
    }
    for name, parts in below.items():
        (blocks / name / "slaves").mkdir(parents=True)
        for part in parts:
            (blocks / name / "slaves" / part).symlink_to(blocks / part)
    for name, uuid in (("dm-0", "CRYPT-LUKS2-0af"), ("dm-1", "LVM-3f")):
        (blocks / name / "dm").mkdir()
        (blocks / name / "dm" / "uuid").write_text(uuid)
    (tmp_path / "sys" / "dev" / "block").mkdir(parents=True)
    (tmp_path / "sys" / "class").mkdir()
    (tmp_path / "sys" / "class" / "block").symlink_to(blocks)
    return tmp_path / "sys"


@pytest.mark.parametrize(("disk", "found"), [("sda", False), ("dm-0", True), ("dm-1", True), ("md0", False)])
def test_what_lies_beneath(machine: Path, tmp_path: Path, disk: str, found: bool) -> None:
    number = tmp_path.stat().st_dev
    known = f"{os.major(number)}:{os.minor(number)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 {known} / / rw - btrfs /dev/{disk} rw\n")
    assert encrypted_beneath(tmp_path, system=machine, mounts=mounts) is found
    mounts.write_text(f"36 35 {known} / / rw - overlay overlay rw\n")
    assert encrypted_beneath(tmp_path, system=machine, mounts=mounts) is None
    (machine / "dev" / "block" / known).symlink_to(machine / "devices" / disk)
    assert encrypted_beneath(tmp_path, system=machine, mounts=mounts) is found


def test_a_disk_that_cannot_be_seen_is_no_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for seen, told in ((True, YES), (False, NO)):
        monkeypatch.setattr(probes_vault, "encrypted_beneath", lambda folder, seen=seen: seen)
        assert outcome(home, "disk") == told
    monkeypatch.setattr(probes_vault, "encrypted_beneath", lambda folder: None)
    with pytest.raises(OSError, match="cannot be seen"):
        probes_vault.disk(look(home))
