"""The list of people: founded, changed by two of them, and by nobody who can only write the database."""

from __future__ import annotations

import json
from datetime import timedelta

import people_support as site
import pytest

from appliance.core.errors import ApplianceError, ConfigWrong, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.passphrase import Cost
from appliance.security.people import approvals, changes, guard, mode, persons, seal, signing
from appliance.security.people.persons import NewPerson
from appliance.security.people.rows import Asked


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def both(home: Home, asked: Asked) -> None:
    assert asked.agreed == ("sam",) and asked.state == "pending"
    assert approvals.vote(home, asked.id, site.signer("olga"), yes=True).state == "used"


def add(home: Home, name: str, role: str) -> None:
    both(home, changes.propose_person(home, site.signer("sam"), site.new(name, role), cost=Cost()))


def names(home: Home) -> set[str]:
    roster = persons.load(home)
    assert roster is not None
    return {person.name for person in roster.here}


# --- founding


@pytest.mark.parametrize(
    ("people", "why"),
    [
        ([("olga", "privacy-officer")], "security-admin"),
        ([("sam", "security-admin"), ("ana", "operator")], "privacy-officer"),
        ([("sam", "security-admin"), ("sam", "privacy-officer")], "one name"),
        ([("sam", "security-admin"), ("olga", "boss")], "boss"),
        ([("sam", "security-admin"), ("Olga!", "privacy-officer")], "name of a person"),
    ],
)
def test_a_site_needs_an_officer_and_a_security_admin(
    home: Home, people: list[tuple[str, str]], why: str
) -> None:
    given = [
        NewPerson(name=name, role=role, passphrase=site.passphrase(f"{name}{number}"))
        for number, (name, role) in enumerate(people)
    ]
    with pytest.raises(ConfigWrong, match=why):
        persons.found(home, "St. Anna", given, cost=Cost(), now=site.START)
    assert mode.mode(home) == mode.SINGLE


def test_two_people_do_not_share_a_key_or_a_passphrase(home: Home) -> None:
    sam, olga = site.new("sam", "security-admin"), site.new("olga", "privacy-officer")
    twin = NewPerson(name="olga", role="privacy-officer", passphrase=olga.passphrase, seed=sam.seed)
    with pytest.raises(ConfigWrong, match="one key"):
        persons.found(home, "St. Anna", [sam, twin], cost=Cost(), now=site.START)
    twin = NewPerson(name="olga", role="privacy-officer", passphrase=sam.passphrase)
    with pytest.raises(ConfigWrong, match="one passphrase"):
        persons.found(home, "St. Anna", [sam, twin], cost=Cost(), now=site.START)
    weak = NewPerson(name="olga", role="privacy-officer", passphrase="short")
    with pytest.raises(ConfigWrong, match="easy to guess"):
        persons.found(home, "St. Anna", [sam, weak], cost=Cost(), now=site.START)


def test_a_site_is_founded_once_and_after_an_init_that_was_cut_off(st_anna: Home) -> None:
    people = [site.new("eve", "security-admin"), site.new("otto", "privacy-officer")]
    with pytest.raises(ConfigWrong, match="its people already"):
        persons.found(st_anna, "Mine", people, cost=Cost(), now=site.START)
    site.sql(st_anna, "DELETE FROM rosters")  # the audit log still knows of them
    with pytest.raises(ConfigWrong, match="its people already"):
        persons.found(st_anna, "Mine", people, cost=Cost(), now=site.START)
    site.sql(st_anna, "DELETE FROM audit")  # as a crash after the file and before the database leaves it
    site.sql(st_anna, "DELETE FROM audit_tree")
    site.sql(st_anna, "DELETE FROM sqlite_sequence")
    site.sql(st_anna, "UPDATE audit_head SET size = 0")
    persons.found(st_anna, "Mine", people, cost=Cost(), now=site.START)
    assert names(st_anna) == {"eve", "otto"}


# --- changes


def test_people_come_and_go_with_two_signatures_and_audit_lines(st_anna: Home) -> None:
    add(st_anna, "otto", "operator")
    signed_in = persons.sign_in(st_anna, "otto", site.passphrase("otto"), now=persons.utc_now())
    assert guard.identify(st_anna, signer=signed_in).role == "operator"
    both(st_anna, changes.propose_role(st_anna, site.signer("sam"), "otto", "auditor"))
    assert persons.person(st_anna, "otto").role == "auditor"
    session = guard.identify(st_anna, signer=signed_in)
    reset = NewPerson(name="otto", role="", passphrase=site.passphrase("new otto"), seed=site.SEEDS["eve"])
    both(st_anna, changes.propose_reset(st_anna, site.signer("sam"), reset, cost=Cost()))
    with pytest.raises(NotAllowed, match="not the key"):
        guard.identify(st_anna, signer=signed_in)
    with pytest.raises(NotAllowed, match="not of this site any more"):
        guard.allow(st_anna, session, "site.read")
    persons.sign_in(st_anna, "otto", site.passphrase("new otto"), now=persons.utc_now())
    both(st_anna, changes.propose_removal(st_anna, site.signer("sam"), "otto"))
    assert names(st_anna) == set(site.ROLE_OF)
    for what in ("add", "role", "reset", "remove"):
        assert site.lines(st_anna, f"person.{what}") == 1
    assert json.loads(st_anna.people.read_bytes())["latest"] == 5


def test_the_name_of_somebody_removed_is_never_given_again(st_anna: Home) -> None:
    add(st_anna, "otto", "operator")
    both(st_anna, changes.propose_removal(st_anna, site.signer("sam"), "otto"))
    with pytest.raises(ConfigWrong, match="is or was"):
        add(st_anna, "otto", "operator")
    with pytest.raises(NotFound):
        persons.sign_in(st_anna, "otto", site.passphrase("otto"), now=persons.utc_now())


def test_an_officer_and_a_security_admin_remain(st_anna: Home) -> None:
    sam = site.signer("sam")
    for name, left in (("olga", "privacy-officer"), ("sam", "security-admin")):
        with pytest.raises(ConfigWrong, match=f"no {left} is left"):
            changes.propose_removal(st_anna, sam, name)
        with pytest.raises(ConfigWrong, match=f"no {left} is left"):
            changes.propose_role(st_anna, sam, name, "auditor")
    add(st_anna, "otto", "privacy-officer")
    both(st_anna, changes.propose_removal(st_anna, sam, "olga"))


def test_a_removed_person_can_do_nothing_with_a_session_that_was_open(st_anna: Home) -> None:
    add(st_anna, "otto", "operator")
    otto = site.actor(st_anna, "otto")
    guard.allow(st_anna, otto, "data.import")
    both(st_anna, changes.propose_removal(st_anna, site.signer("sam"), "otto"))
    with pytest.raises(NotAllowed, match="not of this site any more"):
        guard.allow(st_anna, otto, "site.read")


# --- whoever can write rows


def forge(home: Home, version: int, old: str, new: str) -> None:
    held = str(site.column(home, "SELECT content FROM rosters WHERE version = ?", version)[0])
    assert old in held
    site.sql(home, "UPDATE rosters SET content = ? WHERE version = ?", held.replace(old, new, 1), version)


def test_a_role_or_key_changed_in_the_table_stops_everything(st_anna: Home) -> None:
    actor = site.actor(st_anna, "ana")
    eve = signing.public_of(site.SEEDS["eve"])
    forge(st_anna, 1, signing.public_of(site.SEEDS["olga"]), eve)
    with pytest.raises(ApplianceError, match="changed by hand"):
        guard.allow(st_anna, actor, "site.read")
    forge(st_anna, 1, eve, signing.public_of(site.SEEDS["olga"]))
    guard.allow(st_anna, actor, "site.read")
    forge(st_anna, 1, '"operator"', '"auditor"')
    with pytest.raises(ApplianceError, match="changed by hand"):
        guard.allow(st_anna, actor, "site.read")


def test_a_new_list_without_two_signatures_is_none(st_anna: Home) -> None:
    roster = persons.load(st_anna)
    assert roster is not None
    asked = changes.propose_person(
        st_anna, site.signer("sam"), site.new("eve", "privacy-officer"), cost=Cost()
    )
    payload = site.column(st_anna, "SELECT payload FROM requests WHERE id = ?", asked.id)[0]
    after = json.loads(str(payload))["roster"]
    votes = site.column(st_anna, "SELECT vote FROM approvals WHERE request = ?", asked.id)
    signatures = site.column(st_anna, "SELECT signature FROM approvals WHERE request = ?", asked.id)
    alone = [[json.loads(str(votes[0])), signatures[0]]]
    for warrant in (
        {"request": asked.request, "votes": alone},
        {"request": asked.request, "votes": alone * 2},
        {"request": asked.request, "votes": []},
        {"founders": {}},
        {},
    ):
        site.sql(st_anna, "DELETE FROM rosters WHERE version = 2")
        site.sql(
            st_anna,
            "INSERT INTO rosters VALUES (2, ?, ?)",
            canonical.encode(after).decode(),
            canonical.encode(warrant).decode(),
        )
        with pytest.raises(ApplianceError, match="nobody agreed"):
            persons.load(st_anna)


def test_a_list_founded_anew_in_the_table_is_not_this_sites(st_anna: Home, tmp_path: object) -> None:
    for table in ("rosters", "people"):
        site.sql(st_anna, f"DELETE FROM {table}")  # noqa: S608
    with pytest.raises(ApplianceError, match="missing"):
        persons.load(st_anna)
    eve = persons._first(
        "St. Anna", [site.new("eve", "security-admin"), site.new("otto", "privacy-officer")], "x"
    )
    signatures = {
        name: signing.sign(site.signer(name), "roster", {"digest": eve.digest}) for name in ("eve", "otto")
    }
    site.sql(
        st_anna,
        "INSERT INTO rosters VALUES (1, ?, ?)",
        canonical.encode(eve.to_json()).decode(),
        canonical.encode({"founders": signatures}).decode(),
    )
    with pytest.raises(ApplianceError, match="is another one"):
        persons.load(st_anna)


def test_a_removed_person_is_not_brought_back_by_taking_the_newest_list_away(st_anna: Home) -> None:
    add(st_anna, "otto", "operator")
    both(st_anna, changes.propose_removal(st_anna, site.signer("sam"), "otto"))
    site.sql(st_anna, "DELETE FROM rosters WHERE version = 3")
    with pytest.raises(ApplianceError, match="newest version is missing"):
        site.actor(st_anna, "otto")


def test_people_do_not_become_one_person_by_taking_the_file_away(st_anna: Home) -> None:
    kept = st_anna.people.read_bytes()
    st_anna.people.unlink()
    with pytest.raises(ApplianceError, match="is missing"):
        mode.mode(st_anna)
    for damaged in (b"", b"{}", b'{"v": 1, "mode": "free", "site": "x"}', b"[]"):
        st_anna.people.write_bytes(damaged)
        with pytest.raises(ApplianceError, match="is damaged"):
            mode.mode(st_anna)
    st_anna.people.write_bytes(kept)
    assert mode.mode(st_anna) == mode.PEOPLE


def test_a_sealed_key_opens_for_its_person_only(st_anna: Home) -> None:
    held = site.column(st_anna, "SELECT sealed FROM people WHERE name = 'ana'")[0]
    site.sql(st_anna, "UPDATE people SET sealed = ? WHERE name = 'olga'", held)
    with pytest.raises(NotAllowed):
        persons.sign_in(st_anna, "olga", site.passphrase("ana"), now=persons.utc_now())
    public = signing.public_of(site.SEEDS["ana"])
    assert seal.unseal(str(held), "ana", public, site.passphrase("ana")) == site.SEEDS["ana"]
    assert seal.unseal(str(held), "ana", signing.public_of(site.SEEDS["eve"]), site.passphrase("ana")) is None
    with pytest.MonkeyPatch.context() as patch:  # a seed sealed as if it were another key's
        eve = signing.public_of(site.SEEDS["eve"])
        patch.setattr(seal, "public_of", lambda seed: eve)
        mixed = seal.seal("ana", site.SEEDS["ana"], "words", Cost())
    assert seal.unseal(mixed, "ana", eve, "words") is None
    dear = str(held).replace('"memory":65536', '"memory":999999999')
    with pytest.raises(ValueError, match="too high"):
        seal.unseal(dear, "ana", public, site.passphrase("ana"))


# --- lockout


def test_guessing_waits_longer_and_longer(st_anna: Home) -> None:
    now, wrong = persons.utc_now(), "the horse of nobody eats 7"
    for number in range(persons.FREE_TRIES):
        with pytest.raises(NotAllowed) as refused:
            persons.sign_in(st_anna, "ana", wrong, now=now)
        assert ("locked" in refused.value.hint) == (number == persons.FREE_TRIES - 1)
    with pytest.raises(NotAllowed, match="is locked"):
        persons.sign_in(st_anna, "ana", site.passphrase("ana"), now=now + timedelta(seconds=59))
    persons.sign_in(st_anna, "olga", site.passphrase("olga"), now=now)  # nobody else is
    with pytest.raises(NotAllowed, match="is wrong"):
        persons.sign_in(st_anna, "ana", wrong, now=now + timedelta(seconds=61))
    with pytest.raises(NotAllowed, match="is locked"):  # two minutes now
        persons.sign_in(st_anna, "ana", site.passphrase("ana"), now=now + timedelta(seconds=170))
    persons.sign_in(st_anna, "ana", site.passphrase("ana"), now=now + timedelta(seconds=182))
    assert persons.states(st_anna)["ana"] == {"failed": 0, "locked_until": None}
    assert site.lines(st_anna, "person.wrong-passphrase") == 6
    assert site.lines(st_anna, "person.sign-in") == 1


def test_the_wait_doubles_up_to_an_hour() -> None:
    waits = [persons.wait_after(count).total_seconds() / 60 for count in (4, 5, 6, 7, 8, 10, 11, 12, 10_000)]
    assert waits == [0, 1, 2, 4, 8, 32, 60, 60, 60]


def test_a_passphrase_is_changed_and_the_key_stays(st_anna: Home) -> None:
    before = persons.person(st_anna, "ana").public
    persons.change_passphrase(st_anna, site.signer("ana"), "four other words 9 here", cost=Cost())
    with pytest.raises(NotAllowed):
        persons.sign_in(st_anna, "ana", site.passphrase("ana"), now=persons.utc_now())
    again = persons.sign_in(st_anna, "ana", "four other words 9 here", now=persons.utc_now())
    assert signing.public_of(again.seed) == before
    with pytest.raises(ConfigWrong):
        persons.change_passphrase(st_anna, again, "short", cost=Cost())
