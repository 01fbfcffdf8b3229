"""Changes of the list of people, proposed: two people sign the new list itself, and so make it the list."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.security.passphrase import Cost, check_new
from appliance.security.people import approvals, persons, signing
from appliance.security.people.persons import NewPerson
from appliance.security.people.roster import Person, check_change, describe
from appliance.security.people.rows import Asked, text
from appliance.security.people.seal import seal
from appliance.security.people.signing import Signer


def propose_person(
    home: Home, signer: Signer, new: NewPerson, *, cost: Cost, slot: str = "", now: datetime | None = None
) -> Asked:
    """Ask for a new person, whose key is made here and sealed under the passphrase that only they know.

    `slot`: what vault/unlocking.py `hold` gave, so that they can unlock a sealed site once they are listed.

    Raises:
        ConfigWrong: the name is or was somebody's, the role is none, or the passphrase is easy to guess.
    """
    persons.check_person(new.name, new.role)
    check_new(new.passphrase)
    public = signing.public_of(new.seed)
    listed = Person(name=new.name, role=new.role, public=public, since=text(now or persons.utc_now()))
    roster = persons.load(home)
    if roster and new.name in {one.name for one in roster.people}:
        raise ConfigWrong(f"{new.name} is or was a person here.", "Names are not used again; take another.")
    sealed = seal(new.name, new.seed, new.passphrase, cost)
    return _propose(home, signer, "person.add", listed, sealed, slot)


def propose_role(home: Home, signer: Signer, name: str, role: str, *, now: datetime | None = None) -> Asked:
    """Ask for another role of a person. Raises NotFound, ConfigWrong."""
    persons.check_person(name, role)
    old = persons.person(home, name)
    if old.role == role:
        raise ConfigWrong(f"{name} is {role} already.", "See `cloister people list`.")
    changed = replace(old, role=role, since=text(now or persons.utc_now()))
    return _propose(home, signer, "person.role", changed)


def propose_removal(home: Home, signer: Signer, name: str, *, now: datetime | None = None) -> Asked:
    """Ask for a person to be removed; what they signed stops counting. Raises NotFound, ConfigWrong."""
    old = persons.person(home, name)
    changed = replace(old, removed=text(now or persons.utc_now()))
    return _propose(home, signer, "person.remove", changed)


def propose_reset(
    home: Home, signer: Signer, new: NewPerson, *, cost: Cost, slot: str = "", now: datetime | None = None
) -> Asked:
    """Ask for a new key and passphrase of a person who is here; `new.role` is not looked at, `slot` is as in
    `propose_person`.

    Raises:
        NotFound: there is no such person. ConfigWrong: the passphrase is easy to guess.
    """
    check_new(new.passphrase)
    old, public = persons.person(home, new.name), signing.public_of(new.seed)
    changed = replace(old, public=public, since=text(now or persons.utc_now()))
    sealed = seal(new.name, new.seed, new.passphrase, cost)
    return _propose(home, signer, "person.reset", changed, sealed, slot)


def _propose(
    home: Home,
    signer: Signer,
    action: str,
    changed: Person,
    sealed: str | None = None,
    slot: str = "",
) -> Asked:
    roster = persons.load(home)
    if roster is None:
        raise ConfigWrong("One person runs this site.", "Give it people: cloister init.")
    after = roster.after(changed)
    try:
        check_change(roster, after, action, changed.name)
    except ValueError as problem:
        raise ConfigWrong(f"This cannot be: {problem}.", "See `cloister people list`.") from None
    return approvals.ask(
        home,
        signer.person,
        action,
        changed.name,
        describe(roster, after, changed.name),
        signer=signer,
        payload=json.dumps({"roster": after.to_json(), "sealed": sealed, "slot": slot}),
    )


def slot_of(home: Home, request_id: str) -> str:
    """The way to unlock that was asked for together with a change of people; "" where none was."""
    with reading(home) as link:
        row = link.execute("SELECT payload FROM requests WHERE id = ?", (request_id,)).fetchone()
    try:
        return str(json.loads(row["payload"]).get("slot") or "") if row else ""
    except (ValueError, AttributeError):
        return ""
