"""Emergency access: anybody here may act as operator for some minutes, once; a privacy officer reviews it.

Start and end are audit lines of their own; one that the log does not tell of does not run. Until it is
reviewed, nobody who used it can use it again, and `open_cases` says so wherever the state of the site is
shown. It never counts as one of two people.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.people import persons, signing
from appliance.security.people.roles import OFFICER
from appliance.security.people.roster import Roster
from appliance.security.people.rows import at_least, text
from appliance.security.people.signing import Signer

LONGEST = 60
"""Minutes that an emergency lasts at most."""

_STARTED, _REVIEWED = "emergency", "emergency review"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One use. `state` is running, over (and red until reviewed) or reviewed."""

    id: str
    person: str
    reason: str
    at: str
    until: str
    state: str
    reviewed_by: str | None = None


def start(home: Home, signer: Signer, reason: str, *, minutes: int = 30, now: datetime | None = None) -> Case:
    """Let the person act as operator from now on, for so many minutes.

    Raises:
        ConfigWrong: no reason, or not 1 to 60 minutes. NotAllowed: an earlier use waits for its review.
    """
    if not 8 <= len(reason.strip()) <= 300 or not reason.isprintable():
        raise ConfigWrong("An emergency needs a reason, in 8 to 300 characters.", "Say what happened.")
    if not 1 <= minutes <= LONGEST:
        raise ConfigWrong(f"{minutes} minutes are too many or too few.", f"Take 1 to {LONGEST}.")
    persons.person(home, signer.person)
    if any(case.person == signer.person for case in open_cases(home, now=now)):
        raise NotAllowed(
            f"The last emergency of {signer.person} was not reviewed yet.",
            "A privacy officer reviews it: cloister people review ID (see `cloister people list`).",
        )
    with transaction(home) as link:
        moment = at_least(link, now)
        said = {
            "v": 1,
            "id": secrets.token_hex(4),
            "person": signer.person,
            "reason": reason.strip(),
            "at": text(moment),
            "until": text(moment + timedelta(minutes=minutes)),
        }
        signature = signing.sign(signer, _STARTED, said)
        link.execute(
            "INSERT INTO emergencies (id, statement, signature) VALUES (?, ?, ?)",
            (said["id"], canonical.encode(said).decode(), signature),
        )
        audit.record(
            link,
            who=signer.person,
            what="emergency.start",
            target=str(said["id"]),
            reason=said["reason"],
            until=said["until"],
        )
    return next(case for case in cases(home, now=now) if case.id == said["id"])


def end(home: Home, person: str, *, now: datetime | None = None) -> None:
    """End the person's emergency before its time. Raises NotFound if none is running."""
    with transaction(home) as link:
        moment = at_least(link, now)
        for case in _cases(link, _roster(home, link), moment):
            if (case.person, case.state) == (person, "running"):
                _end(link, case, moment, "ended by hand")
                return
    raise NotFound(f"{person} is in no emergency.", "See `cloister people list`.")


def settle(home: Home, *, now: datetime | None = None) -> None:
    """Write the end of those whose time is over; whoever looks next does it."""
    with transaction(home) as link:
        moment = at_least(link, now)
        due = {row["id"] for row in link.execute("SELECT id FROM emergencies WHERE ended IS NULL")}
        for case in _cases(link, _roster(home, link), moment):
            if case.id in due and case.state != "running":
                _end(link, case, datetime.fromisoformat(case.until), "time was over")


def review(home: Home, signer: Signer, case_id: str, *, now: datetime | None = None) -> Case:
    """An officer's signature that what was done in an emergency was looked at.

    Raises:
        NotFound: no such emergency. NotAllowed: no privacy officer, or the very person. ConfigWrong: it
            still runs, or was reviewed.
    """
    settle(home, now=now)
    with transaction(home) as link:
        moment, roster = at_least(link, now), _roster(home, link)
        case = next((one for one in _cases(link, roster, moment) if one.id == case_id), None)
        if case is None:
            raise NotFound(f"There is no emergency {case_id[:40]}.", "See `cloister people list`.")
        officer = roster.find(signer.person)
        if officer is None or officer.role != OFFICER or officer.name == case.person:
            raise NotAllowed(
                f"{signer.person} cannot review this.", f"It needs a {OFFICER} who was not in it."
            )
        if case.state != "over":
            raise ConfigWrong(f"The emergency {case_id} is {case.state}.", "See `cloister people list`.")
        said = {"v": 1, "id": case.id, "person": officer.name, "at": text(moment)}
        link.execute(
            "UPDATE emergencies SET review = ?, review_signature = ? WHERE id = ?",
            (canonical.encode(said).decode(), signing.sign(signer, _REVIEWED, said), case.id),
        )
        audit.record(link, who=officer.name, what="emergency.review", target=case.id, of=case.person)
        return next(one for one in _cases(link, roster, moment) if one.id == case_id)


def runs(link: sqlite3.Connection, roster: Roster, person: str, now: datetime | None = None) -> bool:
    """Whether the person acts as operator now."""
    running = [case.person for case in _cases(link, roster, at_least(link, now)) if case.state == "running"]
    return person in running


def cases(home: Home, *, now: datetime | None = None) -> list[Case]:
    """All uses, newest first."""
    with reading(home) as link:
        roster = persons.load(home, link)
        return [] if roster is None else _cases(link, roster, at_least(link, now))


def open_cases(home: Home, *, now: datetime | None = None) -> list[Case]:
    """Those that no officer has reviewed: shown red."""
    return [case for case in cases(home, now=now) if case.state != "reviewed"]


def _roster(home: Home, link: sqlite3.Connection) -> Roster:
    roster = persons.load(home, link)
    if roster is None:
        raise ConfigWrong("One person runs this site and may do everything.", "See `cloister init`.")
    return roster


def _cases(link: sqlite3.Connection, roster: Roster, moment: datetime) -> list[Case]:
    found = []
    for row in link.execute("SELECT * FROM emergencies ORDER BY rowid DESC").fetchall():
        case = _case(link, row, roster, moment)
        if case is not None:
            found.append(case)
    open_ = [case.person for case in found if case.state != "reviewed"]
    return [
        replace(case, state="over") if case.state == "running" and open_.count(case.person) > 1 else case
        for case in found
    ]


def _case(link: sqlite3.Connection, row: sqlite3.Row, roster: Roster, moment: datetime) -> Case | None:
    """What a row says where its person signed it, else None. Of the keys a person had, the newest counts."""
    try:
        said = canonical.decode(row["statement"].encode())
        began, until = (datetime.fromisoformat(said[name]) for name in ("at", "until"))
        one = next(person for person in roster.people if person.name == said["person"])
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
    signed = said.get("id") == row["id"] and signing.holds(one.public, _STARTED, said, row["signature"])
    reviewer = _reviewer(row, roster)
    if reviewer is not None and reviewer != one.name:
        state = "reviewed"
    elif (
        signed
        and one.removed is None
        and row["ended"] is None
        and began <= moment < until <= began + timedelta(minutes=LONGEST)
        and _lasts(link, said)
    ):
        state = "running"
    else:
        state = "over"
    return Case(
        id=row["id"],
        person=one.name,
        reason=str(said["reason"]),
        at=str(said["at"]),
        until=str(said["until"]),
        state=state,
        reviewed_by=reviewer,
    )


def _lasts(link: sqlite3.Connection, said: dict[str, Any]) -> bool:
    """Whether the audit log tells of this start, and of nothing since that ended it: also no later time."""
    query = "SELECT seq, entry FROM audit WHERE instr(entry, ?) AND instr(entry, ?) ORDER BY seq DESC LIMIT 1"
    start = link.execute(query, ('"what":"emergency.start"', f'"target":"{said["id"]}"')).fetchone()
    if start is None:
        return False
    told = json.loads(start["entry"])
    if (told["who"], told["target"], told.get("until")) != (said["person"], said["id"], said["until"]):
        return False
    query = (
        "SELECT 1 FROM audit WHERE seq > ?"
        " AND (CASE WHEN json_valid(entry) THEN json_extract(entry, '$.at') END >= ?"
        " OR (instr(entry, ?) AND instr(entry, ?))) LIMIT 1"
    )
    ended = ('"what":"emergency.end"', f'"target":"{said["id"]}"')
    return link.execute(query, (start["seq"], said["until"], *ended)).fetchone() is None


def _reviewer(row: sqlite3.Row, roster: Roster) -> str | None:
    try:
        said: dict[str, Any] = canonical.decode((row["review"] or "").encode())
        one = next(person for person in roster.people if person.name == said["person"])
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
    fits = said.get("id") == row["id"] and one.role == OFFICER
    return (
        one.name
        if fits and signing.holds(one.public, _REVIEWED, said, row["review_signature"] or "")
        else None
    )


def _end(link: sqlite3.Connection, case: Case, moment: datetime, how: str) -> None:
    link.execute("UPDATE emergencies SET ended = ? WHERE id = ? AND ended IS NULL", (text(moment), case.id))
    audit.record(link, who=case.person, what="emergency.end", target=case.id, how=how, ended=text(moment))
