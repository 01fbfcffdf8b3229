"""Sets a damaged audit log aside as evidence and begins a new one, once two people have signed for it.

A damaged log refuses every change, so also the requests that two people usually sign (people/approvals.py).
Here they sign a statement of their own: {v, what, site, number, entries, log, intact, checkpoint_size,
checkpoint_root, damages, because, asked, expires}; `log` is the SHA-256 over the rows up to the newest. It
waits in `damaged-logs/pending.json` until the second has signed, at most a day.

Then, in one transaction: the rows are copied to a database of their own, which is hashed; the log's tables
are emptied; and the first entry of the new log says all of it. Requests of two people that were open are
void, because the log that would have shown their use is gone. Taken over is a record of the installation
(`supply.record`) that stands in the intact part, and which keys of partners have ended. What was asked of the
endpoint goes with the log it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, NotAllowed
from appliance.core.files import sha256_file, sync, write_private
from appliance.core.home import Home
from appliance.core.migrations import LOG_TRIGGERS
from appliance.security import audit, canonical
from appliance.security.log.checkpoint import Verifier
from appliance.security.log.renewed import REPAIR, Renewal, folder_of, renewals
from appliance.security.log.verify import Verdict, verify
from appliance.security.people import guard, persons, signing
from appliance.security.people.mode import SINGLE, anchor, mode
from appliance.security.people.roster import Person, enough
from appliance.security.people.signing import Signer
from appliance.security.trust import clock
from appliance.security.trust.logged import logged

LIFE = timedelta(hours=24)
_OWN = ("audit", "audit_tree", "audit_head", "checkpoints", "request_log")
_TABLES = (*_OWN, "witnesses")  # among which are checkpoints of partners' logs, which stay
_CARRIED = "supply.record"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """How far it is: `statement`, who signed it, and, when it was done, what is now kept of the old log."""

    statement: dict[str, Any]
    agreed: tuple[str, ...]
    done: Renewal | None


def repair(
    home: Home,
    *,
    who: str,
    signer: Signer | None,
    because: str = "",
    keys: Sequence[Verifier],
    now: datetime | None = None,
) -> Repair:
    """Sign for beginning the log anew; when two people have, it is done. One person's site does it at once.

    `because` is given by the first who signs. `keys`: the site's own, of all its epochs.

    Raises:
        ConfigWrong: the log is not damaged, no reason was given, or this person has signed already.
        NotAllowed: `who` may not, or is not signed in.
    """
    moment, verdict = now or persons.utc_now(), verify(home, keys)
    if verdict.ok:
        raise ConfigWrong("The audit log is not damaged.", "There is nothing to repair.")
    single = mode(home) == SINGLE
    with reading(home) as link:
        if not single:
            guard.check(link, home, who, REPAIR)
        held = None if single else _pending(home, link, moment)
        if held is not None and not _true(link, home, held["statement"], verdict):
            held = None
        if held is None:
            held = {"statement": _statement(link, home, verdict, because, moment), "signatures": {}}
    if single:
        return Repair(statement=held["statement"], agreed=(who,), done=_begin(home, held, (who,), who, keys))
    if signer is None or signer.person != who:
        raise NotAllowed(f"{who[:40]} is not signed in here.", "Add --as NAME.")
    if who in _agreed(home, held):
        raise ConfigWrong(f"{who} has signed this already.", f"It needs {_needed()}.")
    signature = signing.sign(signer, REPAIR, held["statement"])
    held = {**held, "signatures": held["signatures"] | {who: signature}}
    people = _agreed(home, held)
    if who not in people:
        raise NotAllowed(f"This is not the key of {who}.", "Sign in again.")
    if not enough(REPAIR, tuple(people.values())):
        _place(home).parent.mkdir(mode=0o700, exist_ok=True)
        write_private(_place(home), canonical.encode(held))
        return Repair(statement=held["statement"], agreed=tuple(people), done=None)
    return Repair(
        statement=held["statement"], agreed=tuple(people), done=_begin(home, held, tuple(people), who, keys)
    )


def waiting(home: Home, *, now: datetime | None = None) -> Repair | None:
    """The repair that waits for its second signature."""
    with reading(home) as link:
        held = _pending(home, link, now or persons.utc_now())
    return (
        None
        if held is None
        else Repair(statement=held["statement"], agreed=tuple(_agreed(home, held)), done=None)
    )


def finish(home: Home) -> None:
    """End what a crash has cut off after a log was begun anew: its witnesses are among the evidence."""
    for one in renewals(home):
        for kept in (folder_of(home, one.number) / "witnesses").glob("*.note"):
            old = home.witnesses / kept.name
            if old.is_file() and old.read_bytes() == kept.read_bytes():
                old.unlink()
                sync(home.witnesses)


def _statement(
    link: sqlite3.Connection, home: Home, verdict: Verdict, because: str, moment: datetime
) -> dict[str, Any]:
    if not 3 <= len(because) <= 200 or not because.isprintable():
        raise ConfigWrong("A log is begun anew for a reason: 3 to 200 characters.", 'Add --because "...".')
    last = int(link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0])
    size = verdict.signed or 0
    row = link.execute("SELECT root FROM checkpoints WHERE size = ?", (size,)).fetchone()
    tied = anchor(home)
    return {
        "v": 1,
        "what": REPAIR,
        "site": tied.site if tied else "",
        "number": len(renewals(home, link)) + 1,
        "entries": last,
        "log": _rows_hash(link, last),
        "intact": verdict.intact,
        "checkpoint_size": size if row else 0,
        "checkpoint_root": str(row[0]) if row else "",
        "damages": [damage.text for damage in verdict.damages[:20]],
        "because": because,
        "asked": moment.isoformat(timespec="milliseconds"),
        "expires": (moment + LIFE).isoformat(timespec="seconds"),
    }


def _rows_hash(link: sqlite3.Connection, last: int) -> str:
    """SHA-256 over the rows of the log up to number `last`, as they are."""
    digest = hashlib.sha256()
    query = "SELECT seq, CAST(entry AS BLOB), CAST(leaf AS BLOB) FROM audit WHERE seq <= ? ORDER BY seq"
    for seq, entry, leaf in link.execute(query, (last,)):
        digest.update(f"{seq} {len(entry)} {len(leaf)}\n".encode() + entry + leaf)
    return digest.hexdigest()


def _pending(home: Home, link: sqlite3.Connection, moment: datetime) -> dict[str, Any] | None:
    """What waits, if it is still of this very log, not too old, and signed by somebody of this site."""
    try:
        held: dict[str, Any] = canonical.decode(_place(home).read_bytes())
        told = held["statement"]
        asked = datetime.fromisoformat(told["asked"])
        fresh = timedelta(minutes=-1) <= moment - asked < LIFE
        same = (told["what"], told["number"]) == (REPAIR, len(renewals(home, link)) + 1)
        same = same and told["log"] == _rows_hash(link, int(told["entries"]))
        if fresh and same and _agreed(home, held, link):
            return held
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _true(link: sqlite3.Connection, home: Home, told: dict[str, Any], verdict: Verdict) -> bool:
    """Whether what the first has signed is what the log shows now: nobody signs what another made up.

    Entries may have come since, but none that was there when it was asked is left out.
    """
    now = _statement(link, home, verdict, told["because"], datetime.fromisoformat(told["asked"]))
    same = all(
        told.get(name) == now[name] for name in ("site", "number", "checkpoint_size", "checkpoint_root")
    )
    query = (
        "SELECT 1 FROM audit WHERE seq > ?"
        " AND COALESCE(CASE WHEN json_valid(entry) THEN json_extract(entry, '$.at') END, '') <= ? LIMIT 1"
    )
    hidden = link.execute(query, (told["entries"], told["asked"])).fetchone() is not None
    alike = len(told["damages"]) == len(now["damages"]) and told["intact"] <= verdict.intact
    return same and alike and not hidden


def _agreed(home: Home, held: dict[str, Any], link: sqlite3.Connection | None = None) -> dict[str, Person]:
    """Those who are here, may, and have signed this statement."""
    roster, found = persons.load(home, link), dict[str, Person]()
    for name, signature in held["signatures"].items():
        one = roster.find(str(name)) if roster else None
        if one is None or guard.may(one, REPAIR) is not None:
            continue
        if signing.holds(one.public, REPAIR, held["statement"], str(signature)):
            found[one.name] = one
    return found


def _begin(
    home: Home, held: dict[str, Any], people: tuple[str, ...], who: str, keys: Sequence[Verifier]
) -> Renewal:
    told = held["statement"]
    folder = folder_of(home, told["number"])
    shutil.rmtree(folder, ignore_errors=True)  # of a repair that was cut off before it counted
    (folder / "witnesses").mkdir(mode=0o700, parents=True)
    with transaction(home) as link:
        if _rows_hash(link, told["entries"]) != told["log"]:
            raise ConfigWrong("The log has changed since this was signed.", "Give the command again.")
        before = renewals(home, link)
        evidence = _keep(home, folder)
        done = Renewal(
            number=told["number"],
            at=persons.utc_now().isoformat(timespec="seconds"),
            people=people,
            because=told["because"],
            entries=told["entries"],
            intact=told["intact"],
            checkpoint_size=told["checkpoint_size"],
            checkpoint_root=told["checkpoint_root"],
            evidence=evidence,
        )
        history = [one.to_json() for one in (*before, done)]
        for note in sorted(home.witnesses.glob("*.note")):
            shutil.copyfile(note, folder / "witnesses" / note.name)
        write_private(folder / "statement.json", canonical.encode(held))
        write_private(folder / "history.json", json.dumps(history, indent=1).encode())
        sync(folder / "witnesses")
        sync(folder)
        sync(folder.parent)
        carried, ended = _carried(link, told["intact"]), _ended(link)
        time = clock.floor(link)
        _empty(link, {key.name for key in keys}, time)
        audit.record(
            link,
            who=who,
            what=REPAIR,
            target=f"log {done.number}",
            history=history,
            statement=told,
            signatures=held["signatures"],
            time=time,
        )
        for entry in carried:
            more = {key: entry[key] for key in ("digest", "packages")}
            audit.record(link, who=entry["who"], what=_CARRIED, target=entry["target"], carried=True, **more)
        for key, name in ended.items():
            audit.record(link, who=who, what="trust.revoke", target=name, key=key, carried=True)
    _place(home).unlink(missing_ok=True)
    finish(home)
    return done


def _keep(home: Home, folder: Path) -> str:
    """Copy the log's tables as they are to a database of their own; its SHA-256.

    Another connection reads them, while the caller's transaction lets nobody write.
    """
    path = folder / "log.db"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("ATTACH DATABASE ? AS site", (str(home.database),))
        own.execute("BEGIN")
        for table in _TABLES:
            own.execute(f"CREATE TABLE {table} AS SELECT * FROM site.{table}")  # noqa: S608
        own.execute("CREATE TABLE counts AS SELECT name, seq FROM site.sqlite_sequence")
        own.execute("COMMIT")
        own.execute("DETACH DATABASE site")
    path.chmod(0o400)
    sync(path)
    return sha256_file(path)


def _carried(link: sqlite3.Connection, intact: int) -> list[dict[str, Any]]:
    """The newest record of each installation among the intact entries."""
    found: dict[str, dict[str, Any]] = {}
    rows = link.execute(
        "SELECT entry FROM audit WHERE seq <= ? AND instr(entry, ?) ORDER BY seq",
        (intact, f'"what":"{_CARRIED}"'),
    )
    for row in rows:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(row["entry"])
            if entry["what"] == _CARRIED and {"who", "target", "digest", "packages"} <= entry.keys():
                found[entry["target"]] = entry
    return list(found.values())


def _ended(link: sqlite3.Connection) -> dict[str, str]:
    """The keys of cards that have ended by their row or by the log, with their names."""
    rows = link.execute("SELECT key, name, revoked FROM trust_pins ORDER BY name, pinned").fetchall()
    told = logged(link).ended
    return {row["key"]: row["name"] for row in rows if row["revoked"] or row["key"] in told}


def _empty(link: sqlite3.Connection, origins: set[str], time: int) -> None:
    """Take the old log out, in the caller's transaction; the time that is known stays known."""
    link.execute("UPDATE trust_clock SET newest = ?, audit_seq = 0", (time,))
    for name in LOG_TRIGGERS:
        link.execute(f"DROP TRIGGER IF EXISTS {name}")
    link.executemany("DELETE FROM witnesses WHERE origin = ?", [(one,) for one in origins])
    for table in _OWN:
        link.execute(f"DELETE FROM {table}")  # noqa: S608
    link.execute("DELETE FROM sqlite_sequence WHERE name IN ('audit', 'request_log')")
    link.execute("INSERT INTO audit_head (one, size, older) VALUES (1, 0, 0)")
    for statement in LOG_TRIGGERS.values():
        link.execute(statement)
    link.execute(
        "UPDATE requests SET used = 'void', used_for = 'a log that was set aside' WHERE used IS NULL"
    )


def _place(home: Home) -> Path:
    return home.path / "damaged-logs" / "pending.json"


def _needed() -> str:
    from appliance.security.people.roles import needed

    return needed(REPAIR)
