"""The slots follow the signed list of people, through the key agent, and nobody else gets one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import people_support as site
import pytest

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home, open_home
from appliance.core.sealing import Locked
from appliance.security.passphrase import Cost
from appliance.security.people import approvals, persons
from appliance.security.vault import slots, unlocking
from appliance.security.vault.slots import PassphraseWrong
from tui import session_people, session_vault
from tui.session import Session


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A sealed site with people, unlocked; ana and olga can open it."""
    home = open_home(tmp_path / "home")
    master = slots.create(home, "olga", site.passphrase("olga"))
    slots.add_slot(home, master, "ana", site.passphrase("ana"))
    people = [site.new(name, role) for name, role in site.ROLE_OF.items()]
    persons.found(home, "St. Anna", people, cost=Cost(), now=site.START)
    unlocking.start(home, master)
    yield home
    unlocking.lock(home)


def _names(home: Home) -> list[str]:
    return [slot["name"] for slot in slots.people(home)]


def _as(home: Home, name: str) -> Session:
    return Session(home.path, signer=site.signer(name))


def _agreed(home: Home, request_id: str) -> None:
    assert session_people.answer(_as(home, "olga"), request_id, yes=True).state == "used"


def test_who_is_added_can_unlock_and_who_is_removed_cannot(home: Home) -> None:
    asked = session_people.add(_as(home, "sam"), "otto", "operator", site.passphrase("otto"))
    assert _names(home) == ["olga", "ana"]  # one has agreed, which is not enough
    _agreed(home, asked.id)
    assert _names(home) == ["olga", "ana", "otto"]
    assert slots.open_slot(home, "otto", site.passphrase("otto")).master
    assert site.lines(home, "vault.add") == 1
    asked = session_people.remove(_as(home, "sam"), "otto")
    _agreed(home, asked.id)
    assert _names(home) == ["olga", "ana"]
    assert site.lines(home, "vault.remove") == 1
    with pytest.raises(PassphraseWrong):
        slots.open_slot(home, "otto", site.passphrase("otto"))


def test_a_reset_gives_the_new_passphrase_to_both(home: Home) -> None:
    asked = session_people.reset(_as(home, "sam"), "ana", "a new set of words for ana")
    _agreed(home, asked.id)
    with pytest.raises(PassphraseWrong):
        slots.open_slot(home, "ana", site.passphrase("ana"))
    assert slots.open_slot(home, "ana", "a new set of words for ana").master
    assert persons.sign_in(home, "ana", "a new set of words for ana", now=persons.utc_now())


def test_a_locked_site_changes_no_people(home: Home) -> None:
    asked = session_people.remove(_as(home, "sam"), "ana")
    unlocking.lock(home)
    for act in (
        lambda: session_people.remove(_as(home, "sam"), "aude"),
        lambda: session_people.add(_as(home, "sam"), "otto", "operator", site.passphrase("otto")),
        lambda: session_people.reset(_as(home, "sam"), "ana", "a new set of words for ana"),
        lambda: session_people.answer(_as(home, "olga"), asked.id, yes=True),
    ):
        with pytest.raises(Locked):
            act()
    assert approvals.show(home, asked.id).state == "pending"
    assert session_people.answer(_as(home, "olga"), asked.id, yes=False).state == "refused"


def test_a_removed_person_does_not_unlock_although_the_slot_was_left(home: Home) -> None:
    """As after a crash between the list and the slot: the next who unlocks ends it."""
    asked = session_people.remove(_as(home, "sam"), "ana")
    approvals.vote(home, asked.id, site.signer("olga"), yes=True)
    unlocking.lock(home)
    assert "ana" in _names(home)
    with pytest.raises(PassphraseWrong):
        session_vault.unlock(Session(home.path), "ana", site.passphrase("ana"), minutes=10.0, allow_swap=True)
    assert unlocking.status(home)["locked"] is True
    unlocking.unlock(home, "olga", site.passphrase("olga"), allow_swap=True)
    session_people.follow_people(_as(home, "olga"))
    assert _names(home) == ["olga"]
    asked = session_people.add(_as(home, "sam"), "otto", "privacy-officer", site.passphrase("otto"))
    _agreed(home, asked.id)
    master = slots.open_slot(home, "olga", site.passphrase("olga")).master
    slots.remove_slot(home, master, "otto")
    with pytest.raises(ConfigWrong, match="last who can unlock"):
        session_people.remove(_as(home, "sam"), "olga")


def test_the_agent_makes_no_slot_for_who_is_not_listed(home: Home) -> None:
    eve = unlocking.hold(home, "eve", "the passphrase of eve", site.SEEDS["eve"])
    ana = unlocking.hold(home, "ana", "the passphrase of eve", site.SEEDS["eve"])  # not the key of ana
    for held in (eve, ana, "00" * 60, json.dumps({"name": "eve"})):
        with pytest.raises(ConfigWrong, match="cannot be asked"):
            unlocking.follow(home, held)
    assert _names(home) == ["olga", "ana"]
    assert slots.open_slot(home, "ana", site.passphrase("ana")).master


def test_what_is_kept_until_then_opens_nothing_without_the_master(home: Home) -> None:
    asked = session_people.add(_as(home, "sam"), "otto", "operator", site.passphrase("otto"))
    (payload,) = site.column(home, "SELECT payload FROM requests WHERE id = ?", asked.id)
    held = json.loads(str(payload))["slot"]
    assert bytes.fromhex(held) and len(held) > 200
    assert not any(word in bytes.fromhex(held) for word in (b"otto", b"salt", b"first"))
