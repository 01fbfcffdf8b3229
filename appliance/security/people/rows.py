"""Stored requests and votes, read with distrust: whoever can write rows must not be believed for it.

Request: {v, id, site, action, target, content, digest, asker, asked, expires, after}. `content` says exactly
what is asked for, as texts by name, and approvers are shown all of it; `digest` is of action, target and
content, so nothing else can be done with it than what was shown. `after` is the newest audit entry when it
was asked. A vote: {v, request, vote, person, role, at},
`request` being the digest of the request. Both are canonical JSON; a vote is signed with the person's own
key. That a request was used stands in its row and in the audit log; either is enough to refuse it again, and
what it was used for is what the log says. A request from before the log was begun anew is void.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from appliance.core.errors import NotFound
from appliance.security import canonical
from appliance.security.log.renewed import REPAIR
from appliance.security.people import persons, signing
from appliance.security.people.roles import TABLE
from appliance.security.people.roster import VOTE, Roster, agreed, enough

USED = "approval.use"
_AHEAD = timedelta(hours=24)
"""How far ahead of the time a request may have been asked: a clock that was wrong makes none that lasts."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as lists show it. `state` is pending, approved, refused, expired or used."""

    request: dict[str, Any]
    state: str
    agreed: tuple[str, ...]
    refused: tuple[str, ...]
    used_for: str | None = None

    @property
    def id(self) -> str:
        """Eight hex digits."""
        return str(self.request["id"])


def digest_for(action: str, target: str, content: Mapping[str, str] | None) -> str:
    """What two people sign who agree to exactly this."""
    return signing.digest({"action": action, "target": target, "content": dict(content or {})})


def at_least(link: sqlite3.Connection, now: datetime | None) -> datetime:
    """The time, but never before the newest audit entry: a clock set back revives nothing that expired."""
    moment = (now or persons.utc_now()).astimezone(UTC)
    row = link.execute("SELECT entry FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return (
        max(moment, datetime.fromisoformat(json.loads(row["entry"])["at"]).astimezone(UTC)) if row else moment
    )


def read(text: str) -> dict[str, Any] | None:
    """A stored request; None where the row is not one, or asks for what is no action of two people."""
    try:
        request = canonical.decode(text.encode())
        datetime.fromisoformat(request["expires"])
        whole = set(request) == _FIELDS and TABLE[request["action"]].two
        whole = whole and request["digest"] == digest_for(
            request["action"], request["target"], request["content"]
        )
    except (ValueError, TypeError, KeyError):
        return None
    return request if whole else None


_FIELDS = {"v", "id", "site", "action", "target", "content", "digest", "asker", "asked", "expires", "after"}


def request_of(link: sqlite3.Connection, request_id: str) -> dict[str, Any]:
    """The stored request of that id. Raises NotFound."""
    row = link.execute("SELECT request FROM requests WHERE id = ?", (request_id,)).fetchone()
    request = read(row["request"]) if row else None
    if request is None or request["id"] != request_id:
        raise NotFound(f"There is no request {request_id[:40]}.", "See `cloister approve list`.")
    return request


def votes_of(link: sqlite3.Connection, request_id: str) -> list[list[Any]]:
    """The votes of a request, each with its signature; none of them is checked."""
    rows = link.execute(
        "SELECT vote, signature FROM approvals WHERE request = ? ORDER BY person", (request_id,)
    )
    found = []
    for row in rows:
        try:
            found.append([canonical.decode(row["vote"].encode()), row["signature"]])
        except ValueError:
            continue
    return found


def matching(
    link: sqlite3.Connection, roster: Roster, action: str, target: str, digest: str, moment: datetime
) -> list[Asked]:
    """The requests for exactly this that no row calls used, newest first."""
    found = []
    for row in link.execute(
        "SELECT id, request FROM requests WHERE used IS NULL ORDER BY rowid DESC"
    ).fetchall():
        request = read(row["request"])
        if request is None or request["id"] != row["id"] or request["site"] != roster.site:
            continue
        if (request["action"], request["target"], request["digest"]) == (action, target, digest):
            found.append(asked_of(link, roster, request, moment))
    return found


def asked_of(link: sqlite3.Connection, roster: Roster, request: dict[str, Any], moment: datetime) -> Asked:
    """The request with what counts of its votes now."""
    votes = votes_of(link, request["id"])
    yes = agreed(request, votes, roster)
    no = _refused(request, votes, roster)
    row = link.execute("SELECT used, used_for FROM requests WHERE id = ?", (request["id"],)).fetchone()
    if row["used"] or _used_in_log(link, request) is not None or void(link, request):
        state = "used"
    elif no:
        state = "refused"
    elif _expired(link, request, moment):
        state = "expired"
    else:
        state = "approved" if enough(request["action"], yes) else "pending"
    names = tuple(person.name for person in yes)
    return Asked(request=request, state=state, agreed=names, refused=no, used_for=row["used_for"])


def _refused(request: dict[str, Any], votes: list[list[Any]], roster: Roster) -> tuple[str, ...]:
    """Who said no: a signed no of anybody who could have said yes ends it."""
    asked, found = signing.digest(request), []
    for vote_, signature in votes:
        one = roster.find(str(vote_.get("person")))
        if one is None or one.role not in TABLE[request["action"]].may:
            continue
        said = (vote_.get("vote"), vote_.get("request")) == ("no", asked)
        if said and signing.holds(one.public, VOTE, vote_, signature):
            found.append(one.name)
    return tuple(found)


def used_for(link: sqlite3.Connection, request: dict[str, Any], told: str) -> bool:
    """Whether the audit log says that the request was used for `told`; of one from before the log was begun
    anew, its row (`told`) is all there is."""
    entry = _used_in_log(link, request)
    return void(link, request) if entry is None else entry.get("used_for") == told


def void(link: sqlite3.Connection, request: dict[str, Any]) -> bool:
    """Whether the log in which its use would stand was set aside since it was asked."""
    row = link.execute("SELECT CAST(entry AS BLOB) FROM audit WHERE seq = 1").fetchone()
    try:
        first = json.loads(row[0]) if row is not None else {}
        return first.get("what") == REPAIR and _time(request["asked"]) <= _time(first["at"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return True  # of a damaged log


def _expired(link: sqlite3.Connection, request: dict[str, Any], moment: datetime) -> bool:
    """Whether its time is over, or was over at any entry since: a clock set back later revives nothing."""
    if moment >= _time(request["expires"]) or _time(request["asked"]) > moment + _AHEAD:
        return True
    query = (
        "SELECT 1 FROM audit WHERE seq > ?"
        " AND CASE WHEN json_valid(entry) THEN json_extract(entry, '$.at') END >= ? LIMIT 1"
    )
    return link.execute(query, (request["after"], request["expires"])).fetchone() is not None


def _used_in_log(link: sqlite3.Connection, request: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of its use."""
    query = "SELECT entry FROM audit WHERE seq > ? AND entry LIKE ? AND entry LIKE ? ORDER BY seq LIMIT 1"
    words = (f'%"target":"{request["id"]}"%', f'%"what":"{USED}"%')
    row = link.execute(query, (request["after"], *words)).fetchone()
    found: dict[str, Any] | None = None if row is None else json.loads(row["entry"])
    return found


def _time(said: object) -> datetime:
    return datetime.fromisoformat(str(said)).astimezone(UTC)


def text(moment: datetime) -> str:
    """A time as signed statements have it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
