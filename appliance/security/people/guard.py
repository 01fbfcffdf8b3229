"""The one question of who may do what, asked at the door and again below it.

At the door (`identify`, `allow`, `require`) a person is who holds the key of that name. Below it (`spend`)
the change itself asks, inside its transaction, by name, so that code that goes around the door meets the
same roles and, where two people are needed, finds no approval that it could forge.
"""

from __future__ import annotations

import getpass
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from appliance.core.db import reading
from appliance.core.errors import NeedsApproval, NotAllowed
from appliance.core.home import Home
from appliance.security.people import approvals, breakglass, persons, signing
from appliance.security.people.mode import SINGLE, mode
from appliance.security.people.roles import LOOKING, OPERATOR, ROLES, needed, right
from appliance.security.people.roster import Person, Roster
from appliance.security.people.signing import Signer

NOBODY = "nobody"
_SIGN_IN = "sign-in"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts. `how` is "single-person", "signed-in" or "nobody"; `public` is the key they hold.

    `look`: whatever their role, they look only.
    """

    person: str
    how: str
    role: str | None = None
    public: str = ""
    signer: Signer | None = field(default=None, repr=False, compare=False)
    look: bool = False


def identify(home: Home, who: str | None = None, signer: Signer | None = None) -> Actor:
    """The actor behind `signer`, who proves to hold the key; `who` names the one person of a site that has
    one. Without a signer nobody acts where people have roles.

    Raises:
        NotAllowed: the key is not that of anybody here.
    """
    if mode(home) == SINGLE:
        return Actor(person=who or getpass.getuser(), how=SINGLE, signer=signer)
    if signer is None:
        return Actor(person=who or NOBODY, how=NOBODY)
    roster = persons.load(home)
    one = roster.find(signer.person) if roster else None
    asked = {"nonce": os.urandom(16).hex(), "person": signer.person}
    if one is None or not signing.holds(one.public, _SIGN_IN, asked, signing.sign(signer, _SIGN_IN, asked)):
        raise NotAllowed(f"This is not the key of a {signer.person} of this site.", "Sign in again.")
    return Actor(person=one.name, how="signed-in", role=one.role, public=one.public, signer=signer)


def looking(actor: Actor) -> Actor:
    """The same person, who looks only."""
    return replace(actor, look=True)


def may(person: Person, action: str, *, emergency: bool = False) -> str | None:
    """Why this person may not do `action`, in plain words; None when they may.

    In an emergency they may what an operator may, too.
    """
    row = right(action)
    if person.removed is not None:
        return f"{person.name} was removed"
    if person.role in row.may or (emergency and OPERATOR in row.may):
        return None
    allowed = " or ".join(role for role in ROLES if role in row.may)
    return f"to {row.words} is for: {allowed}; {person.name} is {person.role}"


def why_not(home: Home, actor: Actor, action: str, *, now: datetime | None = None) -> str | None:
    """Why the actor may not do `action` now; None when they may, or may at least ask a second person."""
    right(action)
    if actor.look and action not in LOOKING:
        return "it was opened to look only (--look)"
    if mode(home) == SINGLE:
        return None
    if actor.how != "signed-in":
        return "nobody is signed in here"
    with reading(home) as link:
        roster = _people(home, link)
        one = roster.find(actor.person)
        if one is None or one.public != actor.public:
            return f"{actor.person} is not of this site any more"
        return may(one, action, emergency=breakglass.runs(link, roster, one.name, now))


def allow(home: Home, actor: Actor, action: str) -> None:
    """Let the actor do or ask for `action`.

    Raises:
        NotAllowed: their role does not, or nobody is signed in.
    """
    why = why_not(home, actor, action)
    if why is None:
        return
    if actor.look:
        raise NotAllowed(f"This is not allowed: {why}.", "Open the screens without --look.")
    if actor.how == NOBODY:
        raise NotAllowed(
            "Nobody is signed in here, and this site has people with roles.",
            "Add --as NAME (and give your passphrase), or sign in with `cloister unlock`.",
        )
    raise NotAllowed(f"This is not allowed: {why}.", "See `cloister people rights`; ask one who may.")


def require(
    home: Home,
    actor: Actor,
    action: str,
    target: str,
    *,
    content: Mapping[str, str] | None = None,
) -> str | None:
    """As `allow`; where two people are needed, the id of the approval by which it may be done once.

    `content` says exactly what is to be done, as texts by name (hashes of what is too long): approvers are
    shown all of it, and the change gives the same to `spend`. The first call asks for the approval: whoever
    asks has signed already, if their role counts.

    Raises:
        NotAllowed: as `allow`. NeedsApproval: two people have not agreed to it yet.
    """
    allow(home, actor, action)
    if mode(home) == SINGLE or not right(action).two:
        return None
    if found := approvals.ready(home, action, target, content):
        return found
    asked = approvals.ask(home, actor.person, action, target, content or {}, signer=actor.signer)
    if asked.state == "approved":
        return asked.id
    agreed = f" {', '.join(asked.agreed)} agreed." if asked.agreed else ""
    raise NeedsApproval(
        f"Two people must agree: {right(action).words}, {target}. Request {asked.id} is made.{agreed}",
        f"{needed(action).capitalize()} sign: cloister approve yes {asked.id}. Then give this command again.",
        request=asked.id,
    )


def spend(
    link: sqlite3.Connection,
    home: Home,
    who: str,
    action: str,
    target: str,
    *,
    content: Mapping[str, str] | None = None,
    used_for: str = "",
) -> None:
    """Below the door, in the transaction of the change: refuse what `who` may not do, and use the approval
    up where two people are needed.

    Raises:
        NotAllowed: the role of `who` does not. NeedsApproval: no approval of exactly this counts.
    """
    row = right(action)
    if mode(home, link) == SINGLE:
        return
    check(link, home, who, action)
    if row.two:
        approvals.use(link, home, action, target, content, who=who, used_for=used_for or target)


def agreed(
    link: sqlite3.Connection,
    home: Home,
    who: str,
    action: str,
    target: str,
    *,
    content: Mapping[str, str],
) -> tuple[str, ...]:
    """Who agreed to an action of two people that begins now and is spent (`spend`) when it ends.

    Raises:
        NotAllowed, NeedsApproval: as `spend`.
    """
    if mode(home, link) == SINGLE:
        return (who,)
    check(link, home, who, action)
    return approvals.waiting(link, home, action, target, content)


def check(link: sqlite3.Connection, home: Home, who: str, action: str) -> None:
    """Refuse what the role of `who` does not allow. Raises NotAllowed."""
    roster = _people(home, link)
    one = roster.find(who)
    if one is None:
        raise NotAllowed(f"{who[:40]} is nobody of this site.", "See `cloister people list`.")
    why = may(one, action, emergency=breakglass.runs(link, roster, one.name))
    if why is not None:
        raise NotAllowed(f"This is not allowed: {why}.", "See `cloister people rights`; ask one who may.")


def _people(home: Home, link: sqlite3.Connection) -> Roster:
    roster = persons.load(home, link)
    if roster is None:
        raise NotAllowed("The people of this site are missing.", "Restore the backup of the home folder.")
    return roster
