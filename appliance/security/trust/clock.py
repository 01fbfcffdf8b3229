"""What a site knows of the time without trusting its clock.

The floor is the newest of: the times that trusted signers vouched for (manifests and root documents that
were accepted), and the times of the audit log that lie no more than 400 days after those. A clock set
back therefore revives nothing that has expired; a clock set far ahead moves nothing that stays, so
setting it right again is enough. Where a wrong time did get in, two people repair it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from appliance.core.db import transaction
from appliance.core.errors import TrustRefused
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.trust.trust import AHEAD

AuditTime = Callable[[sqlite3.Connection, int, int], int]
"""(link, after, limit): the newest time, in Unix seconds, of audit entries numbered above `after` that is
not above `limit`; 0 where there is none."""

SOFTWARE = 1_767_225_600
"""2026-01-01: no machine with this format has an earlier time."""

_LOOKED_AT = 2000


def floor(link: sqlite3.Connection, audit_time: AuditTime | None = None) -> int:
    """The time, in Unix seconds, that it is at least."""
    row = link.execute("SELECT newest, audit_seq FROM trust_clock").fetchone()
    signed = max(SOFTWARE, int(row["newest"]))
    return max(signed, (audit_time or last_entries)(link, int(row["audit_seq"]), signed + AHEAD))


def vouched(link: sqlite3.Connection, seconds: int) -> None:
    """Note, in the caller's transaction, a time that a trusted signature vouches for."""
    link.execute("UPDATE trust_clock SET newest = MAX(newest, ?)", (seconds,))


def repair(home: Home, seconds: int, *, who: str, approved_by: tuple[str, ...]) -> None:
    """Take `seconds` as the time from now on, whatever was believed before.

    The caller has checked that `approved_by` approved exactly this.

    Raises:
        TrustRefused: fewer than two people, or a time before this format was.
    """
    if len(set(approved_by)) < 2:
        raise TrustRefused("Setting the time back needs two people.", "Have a second person approve it.")
    if seconds < SOFTWARE:
        raise TrustRefused("That time lies before this software was made.", "Give today's date.")
    with transaction(home) as link:
        before = floor(link)
        newest = link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0]
        link.execute("UPDATE trust_clock SET newest = ?, audit_seq = ?", (seconds, newest + 1))
        audit.record(
            link,
            who=who,
            what="clock.repair",
            target="clock",
            before=before,
            after=seconds,
            approved_by=sorted(approved_by),
        )


def last_entries(link: sqlite3.Connection, after: int, limit: int) -> int:
    """An `AuditTime` that looks at the newest 2,000 entries."""
    rows = link.execute(
        "SELECT entry FROM audit WHERE seq > ? ORDER BY seq DESC LIMIT ?", (after, _LOOKED_AT)
    )
    found = 0
    for row in rows:
        seconds = _seconds(json.loads(row["entry"]).get("at"))
        if found < seconds <= limit:
            found = seconds
    return found


def _seconds(text: object) -> int:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
