"""What two people must agree to: asked, signed by both, proven anew when it is used, used once.

What stands in the rows and what is believed of it: rows.py.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, ConfigWrong, NeedsApproval, NotAllowed
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.people import persons, signing
from appliance.security.people.roles import TABLE, needed
from appliance.security.people.roster import (
    CHANGES,
    VOTE,
    Person,
    Roster,
    agreed,
    check_change,
    describe,
    enough,
    read_roster,
)
from appliance.security.people.rows import (
    USED,
    Asked,
    asked_of,
    at_least,
    digest_for,
    matching,
    read,
    request_of,
    text,
    votes_of,
)
from appliance.security.people.rows import used_for as logged_for
from appliance.security.people.signing import Signer

LIFE = timedelta(hours=24)


def ask(
    home: Home,
    who: str,
    action: str,
    target: str,
    content: Mapping[str, str],
    *,
    signer: Signer | None = None,
    payload: str = "",
    now: datetime | None = None,
) -> Asked:
    """Ask two people for `action`; one that is asked already is given back. Whoever asks has agreed as well.

    `content` is all that the approvers are shown and agree to; `payload` is what an approved change of people
    enters.
    """
    roster, digest = _roster(home), digest_for(action, target, content)
    with transaction(home) as link:
        moment = at_least(link, now)
        for old in matching(link, roster, action, target, digest, moment):
            if old.state in ("pending", "approved"):
                found = old
                break
        else:
            request = {
                "v": 1,
                "id": secrets.token_hex(4),
                "site": roster.site,
                "action": action,
                "target": target,
                "content": dict(content),
                "digest": digest,
                "asker": who,
                "asked": text(moment),
                "expires": text(moment + LIFE),
                "after": link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0],
            }
            link.execute(
                "INSERT INTO requests (id, request, payload) VALUES (?, ?, ?)",
                (request["id"], canonical.encode(request).decode(), payload),
            )
            audit.record(
                link,
                who=who,
                what="approval.ask",
                target=str(request["id"]),
                action=action,
                of=target,
                digest=digest,
            )
            found = asked_of(link, roster, request, moment)
        one = roster.find(who)
        if (
            signer is not None
            and one is not None
            and one.role in TABLE[action].may
            and one.name not in found.agreed
        ):
            _write_vote(link, found, one, signer, yes=True, moment=moment)
            found = asked_of(link, roster, found.request, moment)
    return found


def vote(home: Home, request_id: str, signer: Signer, *, yes: bool, now: datetime | None = None) -> Asked:
    """Agree to or refuse a request, signed. A change of people that two have agreed to is made at once.

    Raises:
        NotFound: there is no such request. ConfigWrong: it is not pending, or this person has answered.
        NotAllowed: this person's role cannot decide it.
    """
    with transaction(home) as link:
        roster = _roster(home, link)
        moment = at_least(link, now)
        found = asked_of(link, roster, request_of(link, request_id), moment)
        one = roster.find(signer.person)
        action = found.request["action"]
        if one is None or one.role not in TABLE[action].may:
            raise NotAllowed(
                f"{signer.person} cannot decide on {action}{'' if one is None else f' as {one.role}'}.",
                f"It needs {needed(action)}.",
            )
        if found.state not in ("pending", "approved"):
            raise ConfigWrong(f"Request {request_id} is {found.state}.", "See `cloister approve list`.")
        if yes and one.name in found.agreed:
            raise ConfigWrong(f"{one.name} has agreed to this already.", f"It needs {needed(action)}.")
        _write_vote(link, found, one, signer, yes=yes, moment=moment)
        found = asked_of(link, roster, found.request, moment)
        if found.state == "approved" and action in CHANGES:
            _change_people(link, roster, found, signer.person, moment)
            found = asked_of(link, _roster(home, link), found.request, moment)
    if action in CHANGES:
        persons.raise_floor(home)
    return found


def use(
    link: sqlite3.Connection,
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str] | None,
    *,
    who: str,
    used_for: str,
    now: datetime | None = None,
) -> str:
    """Use up an approval of exactly this, inside the transaction of the change; returns the request's id.

    Every signature is checked anew against who has which role now.

    Raises:
        NeedsApproval: there is none that counts.
    """
    moment = at_least(link, now)
    found = _approved(link, home, action, target, content, moment)
    _mark_used(link, found, who, used_for, moment)
    return found.id


def waiting(
    link: sqlite3.Connection,
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str] | None,
    *,
    now: datetime | None = None,
) -> tuple[str, ...]:
    """Who agreed to exactly this, which is not used up yet. Raises NeedsApproval as `use`."""
    return _approved(link, home, action, target, content, at_least(link, now)).agreed


def _approved(
    link: sqlite3.Connection,
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str] | None,
    moment: datetime,
) -> Asked:
    digest = digest_for(action, target, content)
    for found in matching(link, _roster(home, link), action, target, digest, moment):
        if found.state == "approved":
            return found
    raise NeedsApproval(
        f"Nobody has approved this: {TABLE[action].words}, {target}.", f"It needs {needed(action)}."
    )


def ready(
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str] | None,
    *,
    now: datetime | None = None,
) -> str | None:
    """The request by which exactly this may be done now, or None."""
    with reading(home) as link:
        roster, moment = _roster(home, link), at_least(link, now)
        found = matching(link, roster, action, target, digest_for(action, target, content), moment)
        return next((asked.id for asked in found if asked.state == "approved"), None)


def used_by(
    link: sqlite3.Connection,
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str],
    used_for: str,
) -> bool:
    """Whether a request for exactly this was used for `used_for`, and two people who are here still bear it
    out. What was approved in time goes on after the 24 hours."""
    return _borne(link, action, digest_for(action, target, content), used_for, [_roster(home, link)])


def bore_out(
    link: sqlite3.Connection,
    home: Home,
    action: str,
    target: str,
    content: Mapping[str, str],
    used_for: str,
) -> bool:
    """As `used_by`, of what stays: two people of this site, at some time, agreed by their keys then."""
    return _borne(link, action, digest_for(action, target, content), used_for, persons.history(home, link))


def _borne(
    link: sqlite3.Connection, action: str, digest: str, used_for: str, rosters: Sequence[Roster]
) -> bool:
    """Whether a request of this digest was used for it, by row and log, and a list's people bear it out."""
    rows = link.execute("SELECT request FROM requests WHERE used_for = ?", (used_for,)).fetchall()
    for row in rows:
        request = read(row["request"])
        if request is None or request["digest"] != digest or not logged_for(link, request, used_for):
            continue
        votes = votes_of(link, request["id"])
        if any(enough(action, agreed(request, votes, roster)) for roster in rosters):
            return True
    return False


def unproven(home: Home) -> list[str]:
    """Requests that were used, by row or log, for which no two people of this site have signed."""
    with reading(home) as link:
        rosters, found = persons.history(home, link), list[str]()
        rows = link.execute("SELECT id, request FROM requests WHERE used IS NOT NULL AND used != 'void'")
        held = {row["id"]: read(row["request"]) for row in rows.fetchall()}
        query = "SELECT entry FROM audit WHERE instr(entry, ?) ORDER BY seq"
        for row in link.execute(query, (f'"what":"{USED}"',)):
            held.setdefault(str(json.loads(row["entry"])["target"]), None)
        for name, request in held.items():
            votes = votes_of(link, name)
            if request is None or not any(
                enough(request["action"], agreed(request, votes, roster)) for roster in rosters
            ):
                found.append(name)
    return found


def pending(home: Home, *, every: bool = False, now: datetime | None = None) -> list[Asked]:
    """What waits for an answer or for its use, newest first; `every` gives also what is over."""
    with reading(home) as link:
        roster, moment = _roster(home, link), at_least(link, now)
        rows = link.execute("SELECT request FROM requests ORDER BY rowid DESC LIMIT 500").fetchall()
        requests = [request for row in rows if (request := read(row["request"])) is not None]
        found = [asked_of(link, roster, request, moment) for request in requests]
    return [asked for asked in found if every or asked.state in ("pending", "approved")]


def show(home: Home, request_id: str, *, now: datetime | None = None) -> Asked:
    """One request. Raises NotFound."""
    with reading(home) as link:
        roster = _roster(home, link)
        return asked_of(link, roster, request_of(link, request_id), at_least(link, now))


def _roster(home: Home, link: sqlite3.Connection | None = None) -> Roster:
    roster = persons.load(home, link)
    if roster is None:
        raise ConfigWrong("One person runs this site: there is nobody to approve.", "See `cloister init`.")
    return roster


def _write_vote(
    link: sqlite3.Connection, found: Asked, one: Person, signer: Signer, *, yes: bool, moment: datetime
) -> None:
    said = {
        "v": 1,
        "request": signing.digest(found.request),
        "vote": "yes" if yes else "no",
        "person": one.name,
        "role": one.role,
        "at": text(moment),
    }
    signature = signing.sign(signer, VOTE, said)
    if not signing.holds(one.public, VOTE, said, signature):
        raise NotAllowed(f"This is not the key of {one.name}.", "Sign in again.")
    link.execute(
        "INSERT INTO approvals (request, person, vote, signature) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (request, person) DO UPDATE SET vote = excluded.vote, signature = excluded.signature",
        (found.id, one.name, canonical.encode(said).decode(), signature),
    )
    audit.record(
        link,
        who=one.name,
        what="approval.yes" if yes else "approval.no",
        target=found.id,
        action=found.request["action"],
        of=found.request["target"],
        signature=signature,
    )


def _mark_used(link: sqlite3.Connection, found: Asked, who: str, used_for: str, moment: datetime) -> None:
    link.execute(
        "UPDATE requests SET used = ?, used_for = ? WHERE id = ?", (text(moment), used_for, found.id)
    )
    audit.record(
        link,
        who=who,
        what=USED,
        target=found.id,
        action=found.request["action"],
        of=found.request["target"],
        digest=found.request["digest"],
        agreed=list(found.agreed),
        used_for=used_for,
    )


def _change_people(
    link: sqlite3.Connection, roster: Roster, found: Asked, who: str, moment: datetime
) -> None:
    """Enter the list that was agreed to, if it still follows the one there is."""
    request = found.request
    row = link.execute("SELECT payload FROM requests WHERE id = ?", (found.id,)).fetchone()
    try:
        held = json.loads(row["payload"])
        after = read_roster(held["roster"])
        if describe(roster, after, request["target"]) != request["content"]:
            raise ValueError("it is not what was asked for")
        if (after.version, after.before) != (roster.version + 1, roster.digest):
            raise ConfigWrong(
                "The list of people has changed since this was asked.", "Refuse it, and ask again."
            )
        check_change(roster, after, request["action"], request["target"])
    except (ValueError, KeyError, TypeError) as problem:
        raise ApplianceError(
            f"Request {found.id} is damaged: {problem}.", "Refuse it, and ask again."
        ) from None
    _mark_used(link, found, who, f"list of people, version {after.version}", moment)
    warrant = {"request": request, "votes": votes_of(link, found.id)}
    persons.enter(link, after, warrant, held.get("sealed"), who)
