"""The list of people as something signed: each version names the one before and is agreed to by its people.

Whoever can write the database but holds no two people's keys can therefore not add a person, change a role
or bring a removed person back. Pure: values in, verdicts out.

Roster: {v, site, vault, version, before, people: [{name, role, public, since, removed}]}, canonical JSON;
`vault` is the id of the vault that seals the site, or "": so its people sign that it is sealed. `before` is
the digest of the version before, "" in the first. `since` is when role and key became what they
are. Who is removed stays listed, so a name is never given twice. Warrant of the first: {founders: {name:
signature}}, by all of them; of later ones: {request, votes: [[vote, signature], ..]}, as approvals.py makes
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from appliance.security.people import signing
from appliance.security.people.roles import OFFICER, ROLES, SECURITY, right

NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
LISTED = "roster"
VOTE = "vote"
CHANGES = ("person.add", "person.role", "person.remove", "person.reset")


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person. `public` is an Ed25519 key in hex; `removed` is when, or None while they are here."""

    name: str
    role: str
    public: str
    since: str
    removed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As listed."""
        return {
            "name": self.name,
            "role": self.role,
            "public": self.public,
            "since": self.since,
            "removed": self.removed,
        }


@dataclass(frozen=True, kw_only=True)
class Roster:
    """One version of the list."""

    site: str
    version: int
    before: str
    people: tuple[Person, ...]
    vault: str = ""

    def to_json(self) -> dict[str, Any]:
        """As signed."""
        return {
            "v": 1,
            "site": self.site,
            "vault": self.vault,
            "version": self.version,
            "before": self.before,
            "people": [person.to_json() for person in self.people],
        }

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical spelling."""
        return signing.digest(self.to_json())

    @property
    def here(self) -> tuple[Person, ...]:
        """Those who have not been removed."""
        return tuple(person for person in self.people if person.removed is None)

    def find(self, name: str) -> Person | None:
        """The person of that name who is here."""
        return next((person for person in self.here if person.name == name), None)

    def after(self, person: Person) -> Roster:
        """The next version, in which `person` is new or as given."""
        kept = [person if old.name == person.name else old for old in self.people]
        if person.name not in {old.name for old in self.people}:
            kept.append(person)
        return replace(self, version=self.version + 1, before=self.digest, people=tuple(kept))


def read_roster(held: Any) -> Roster:
    """A stored roster.

    Raises:
        ValueError: it is none, or breaks a rule of its own: see `check`.
    """
    if not isinstance(held, dict) or held.get("v") != 1 or set(held) != _FIELDS:
        raise ValueError("no list of people")
    try:
        people = tuple(Person(**row) for row in held["people"])
    except TypeError:
        raise ValueError("no list of people") from None
    facts = {name: held[name] for name in ("site", "vault", "version", "before")}
    roster = Roster(**facts, people=people)
    check(roster)
    return roster


_FIELDS = {"v", "site", "vault", "version", "before", "people"}


def check(roster: Roster) -> None:
    """Check what every version must keep.

    Raises:
        ValueError: two people share a name or a key, a name or role is none, or no privacy officer or no
            security admin is left.
    """
    for person in roster.people:
        if not NAME.fullmatch(person.name):
            raise ValueError(f"{person.name!r} is no name of a person")
        if person.role not in ROLES:
            raise ValueError(f"{person.role!r} is no role")
        if not re.fullmatch("[0-9a-f]{64}", person.public):
            raise ValueError(f"the key of {person.name} is none")
    for what in ("name", "public"):
        if len({getattr(person, what) for person in roster.people}) < len(roster.people):
            raise ValueError(f"two people have one {'key' if what == 'public' else what}")
    for role in (OFFICER, SECURITY):
        if role not in {person.role for person in roster.here}:
            raise ValueError(f"no {role} is left")


def verified(rows: Sequence[tuple[Any, Any]], founding: str) -> Roster:
    """The newest of the stored versions (content and warrant, oldest first), every step of them proven.

    `founding` is the digest that the first must have, from outside of the database.

    Raises:
        ValueError: a step is not what its people agreed to.
    """
    if not rows:
        raise ValueError("the list of people is missing")
    newest: Roster | None = None
    for content, warrant in rows:
        roster = read_roster(content)
        if newest is None:
            _check_first(roster, warrant, founding)
        else:
            _check_step(newest, roster, warrant)
        newest = roster
    assert newest is not None  # noqa: S101
    return newest


def _check_first(roster: Roster, warrant: Any, founding: str) -> None:
    if roster.digest != founding or roster.version != 1 or roster.before:
        raise ValueError("the first list of people is another one")
    signatures = warrant.get("founders", {}) if isinstance(warrant, dict) else {}
    for person in roster.people:
        if not signing.holds(
            person.public, LISTED, {"digest": roster.digest}, str(signatures.get(person.name))
        ):
            raise ValueError(f"{person.name} did not sign the first list of people")


def _check_step(before: Roster, after: Roster, warrant: Any) -> None:
    kept = (before.version + 1, before.digest, before.site, before.vault)
    if (after.version, after.before, after.site, after.vault) != kept:
        raise ValueError(f"version {after.version} of the list of people does not follow the one before")
    try:
        request, votes = warrant["request"], warrant["votes"]
        action, target, content = request["action"], request["target"], request["content"]
    except (TypeError, KeyError):
        raise ValueError(f"nobody agreed to version {after.version} of the list of people") from None
    if content != describe(before, after, target) or not enough(action, agreed(request, votes, before)):
        raise ValueError(f"nobody agreed to version {after.version} of the list of people")
    check_change(before, after, action, target)


def describe(before: Roster, after: Roster, name: str) -> dict[str, str]:
    """What those are shown who agree that the list becomes `after`."""
    old = next((one for one in before.people if one.name == name), None)
    new = next((one for one in after.people if one.name == name), None)
    told = {"list": after.digest}
    if new is not None:
        told |= {"role": new.role, "key": new.public}
    if old is not None:
        told |= {"role before": old.role, "key before": old.public}
    return told


def check_change(before: Roster, after: Roster, action: str, target: str) -> None:
    """Check that `after` is `before` with what `action` changes of `target`, and nothing else.

    Raises:
        ValueError: it is not.
    """
    check(after)
    old = {person.name: person for person in before.people}
    new = {person.name: person for person in after.people}
    changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    was, now = old.get(target), new.get(target)
    if changed != {target} or now is None or action not in CHANGES:
        raise ValueError("more is changed than was asked for")
    if action == "person.add":
        right_ = was is None and now.removed is None
    elif was is None or was.removed is not None:
        right_ = False
    else:
        allowed = {
            "person.role": replace(was, role=now.role, since=now.since),
            "person.remove": replace(was, removed=now.removed),
            "person.reset": replace(was, public=now.public, since=now.since),
        }[action]
        right_ = now == allowed
    if not right_:
        raise ValueError("something else is changed than was asked for")


def agreed(request: Mapping[str, Any], votes: Any, roster: Roster) -> tuple[Person, ...]:
    """The distinct people of `roster` whose signature under `request` says yes and counts now.

    It counts while the person is here, with the role and the key that they signed with, and while that role
    may do what is asked.
    """
    asked, found = signing.digest(dict(request)), dict[str, Person]()
    row = right(str(request["action"]))
    for vote, signature in votes if isinstance(votes, list) else []:
        person = roster.find(str(vote.get("person"))) if isinstance(vote, dict) else None
        if person is None or vote.get("request") != asked or vote.get("vote") != "yes":
            continue
        if vote.get("role") != person.role or person.role not in row.may:
            continue
        if str(vote.get("at")) >= person.since and signing.holds(person.public, VOTE, vote, str(signature)):
            found[person.public] = person
    return tuple({person.name: person for person in found.values()}.values())


def enough(action: str, people: Sequence[Person]) -> bool:
    """Whether these people can decide on `action`: two, one of them a privacy officer."""
    return (
        right(action).two
        and len({person.name for person in people}) >= 2
        and any(person.role == OFFICER for person in people)
    )
