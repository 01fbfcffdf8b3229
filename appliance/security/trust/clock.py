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
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.people import guard
from appliance.security.trust.trust import AHEAD

AuditTime = Callable[[sqlite3.Connection, int, int], int]
"""(link, after, limit): the newest time, in Unix seconds, of audit entries numbered above `after` that is
not above `limit`; 0 where there is none."""

SOFTWARE = 1_767_225_600
"""2026-01-01: no machine with this format has an earlier time."""

REPAIR, TARGET = "clock.repair", "clock"
_RENEWED = "audit.repair"
_BROUGHT = ("bundle.import", "trust.root")
_LOOKED_AT = 2000


def floor(link: sqlite3.Connection, audit_time: AuditTime | None = None) -> int:
    """The time, in Unix seconds, that it is at least."""
    believed = known(link)
    signed = max(SOFTWARE, believed.newest)
    return max(signed, (audit_time or last_entries)(link, believed.after, signed + AHEAD))


@dataclass(frozen=True, kw_only=True)
class Known:
    """The newest time that signers vouched for or two people set (0: none), and the entry after which the
    machine's own times count. `edited`: the row says something else."""

    newest: int
    after: int
    edited: bool


def known(link: sqlite3.Connection) -> Known:
    """What the log tells of the time; entries that are damaged tell nothing."""
    row = link.execute("SELECT newest, audit_seq FROM trust_clock").fetchone()
    kinds = (REPAIR, _RENEWED, *_BROUGHT)
    rows = link.execute(
        "SELECT seq, entry FROM audit WHERE instr(entry, ?) OR instr(entry, ?) OR instr(entry, ?)"
        " OR instr(entry, ?) ORDER BY seq",
        [f'"what":"{kind}"' for kind in kinds],
    )
    newest, after, older = 0, 0, False
    for seq, text in rows:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(text)
            if entry["what"] == REPAIR:
                newest, after, older = int(entry["after"]), seq, False
            elif entry["what"] == _RENEWED:
                newest, older = int(entry.get("time", 0)), "time" not in entry
            elif entry["what"] in _BROUGHT:
                newest, older = max(newest, int(entry.get("created", 0))), older or "created" not in entry
    if older:
        newest = max(newest, int(row["newest"]))
    held = (int(row["newest"]), int(row["audit_seq"])) if row is not None else None
    return Known(newest=newest, after=after, edited=held != (newest, after))


def vouched(link: sqlite3.Connection, seconds: int) -> None:
    """Note, in the caller's transaction, a time that a trusted signature vouches for.

    What counts is that the entry of the change has it as `created`.
    """
    link.execute("UPDATE trust_clock SET newest = MAX(newest, ?)", (seconds,))


@dataclass(frozen=True, kw_only=True)
class Clock:
    """This machine's clock beside the floor, in Unix seconds. `vouched`: the newest time that a trusted
    signature gave (0: none did). `state`: "right", "behind", "ahead", or "edited" where only the row that
    keeps it is wrong."""

    machine: int
    floor: int
    vouched: int
    state: str
    edited: bool = False

    @property
    def why(self) -> str:
        """The state in a sentence."""
        found = [self.state, *["edited"][: self.edited and self.state != "edited"]]
        return " ".join(_WHY[one] for one in found)


_WHY = {
    "right": "The clock lies after everything that is known of the time.",
    "behind": (
        "The clock was set back, or a wrong time got in before: bundles and documents are judged by the"
        " floor, so what expired before it stays expired."
    ),
    "ahead": (
        "The clock lies more than 400 days after everything that is known of the time: what it would say is"
        " new or expired is judged by it all the same, so set it right."
    ),
    "edited": (
        "The time in the database is not the one that the audit log tells of: somebody has changed it. The"
        " log is believed, so nothing has expired or come back by it. Two people set it right by a repair;"
        " see who can write to the database."
    ),
}


def state(link: sqlite3.Connection, seconds: int, audit_time: AuditTime | None = None) -> Clock:
    """How the machine's clock (`seconds`) stands to the floor."""
    lowest, believed = floor(link, audit_time), known(link)
    found = "behind" if seconds < lowest else "ahead" if seconds > lowest + AHEAD else "right"
    if found == "right" and believed.edited:
        found = "edited"
    return Clock(machine=seconds, floor=lowest, vouched=believed.newest, state=found, edited=believed.edited)


def repair_content(seconds: int, because: str) -> dict[str, str]:
    """What two people agree to who repair the clock."""
    return {"time": datetime.fromtimestamp(seconds, UTC).isoformat(), "because": because}


def repair(home: Home, seconds: int, *, who: str, because: str) -> None:
    """Take `seconds` as the time from now on, whatever was believed before, once two people have agreed.

    Raises:
        TrustRefused: a time before this format was. ConfigWrong: no reason.
        NotAllowed: `who` may not. NeedsApproval: two people have not agreed to `repair_content`.
    """
    if seconds < SOFTWARE:
        raise TrustRefused("That time lies before this software was made.", "Give today's date.")
    if not 3 <= len(because) <= 200 or not because.isprintable():
        raise ConfigWrong("A repair of the clock needs its reason: 3 to 200 characters.", "Add --because.")
    with transaction(home) as link:
        guard.spend(
            link, home, who, REPAIR, TARGET, content=repair_content(seconds, because), used_for="clock"
        )
        before = floor(link)
        newest = link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0]
        link.execute("UPDATE trust_clock SET newest = ?, audit_seq = ?", (seconds, newest + 1))
        audit.record(link, who=who, what=REPAIR, target=TARGET, before=before, after=seconds, because=because)


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
