"""The rows of the request log (requests.py): their hash, a prompt's HMAC, the check against the tree."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.security.log.renewed import folder_of, renewals
from appliance.security.log.walk import Damage

WHAT = "requests"
KEY_DAYS = 30
_COLUMNS = "id, request, kind, at, key, model, route, prompt_tokens, completion_tokens, prompt"
_MARK = f'"what":"{WHAT}"'


def day_key(home: Home, link: sqlite3.Connection, moment: datetime, *, who: str) -> bytes:
    """The key of a moment's UTC day, made if missing; then the keys of days long past are deleted.

    It is made of a secret of the day, in the database, and one of the site, in `keys`: a stolen disk of a
    sealed home has the first and not the second, and so tells nothing of a prompt.

    Raises:
        Locked: the home is sealed and locked.
    """
    day = moment.date().isoformat()
    link.execute("INSERT OR IGNORE INTO request_days VALUES (?, ?)", (day, secrets.token_bytes(32)))
    row = link.execute("SELECT key FROM request_days WHERE day = ?", (day,)).fetchone()
    forget(link, moment, who=who)
    if not _secret_place(home).exists():  # `link` writes, so that nobody else does now
        write_private(_secret_place(home), secrets.token_bytes(32))
    return _both(read_bytes(_secret_place(home)), row[0])


def _secret_place(home: Home) -> Path:
    return home.identity.with_name("requests.key")


def _both(site: bytes, day: bytes) -> bytes:
    return hmac.digest(site, b"cloister/requests/1\0" + bytes(day), "sha256")


def prompt_mac(key: bytes, prompt: Any) -> str:
    """HMAC-SHA256 of a prompt (its messages, or its text) as canonical JSON, in hex."""
    text = json.dumps(prompt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def find_prompt(home: Home, prompt: Any) -> list[dict[str, Any]]:
    """The requests that sent just this prompt, of the days whose key is still there, oldest first.

    Those of logs that were set aside as damaged are among them.

    Raises:
        Locked: the home is sealed and locked.
    """
    if not _secret_place(home).exists():
        return []
    site = read_bytes(_secret_place(home))
    with reading(home) as link:
        days = link.execute("SELECT day, key FROM request_days ORDER BY day").fetchall()
        macs = [(str(day), prompt_mac(_both(site, key), prompt)) for day, key in days]
        found = _sent(link, macs)
    for one in renewals(home):
        path = folder_of(home, one.number) / "log.db"
        if path.is_file():
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as old:
                found += _sent(old, macs)
    return sorted(found, key=lambda row: str(row["at"]))


def _sent(link: sqlite3.Connection, macs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    columns = ("request", "at", "key", "model")
    found = []
    for mac in macs:
        rows = link.execute(
            f"SELECT {', '.join(columns)} FROM request_log"  # noqa: S608
            " WHERE kind = 'asked' AND substr(at, 1, 10) = ? AND prompt = ? ORDER BY id",
            mac,
        )
        found += [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def forget(link: sqlite3.Connection, moment: datetime, *, who: str, days: int = KEY_DAYS) -> int:
    """Delete the keys of days that are over by more than `days`, with an audit entry; how many there were.

    SQLite's log file holds the old page until it is written over, and backups hold the key for ever.
    """
    link.execute("PRAGMA secure_delete = ON")  # or the key stays readable in a free page
    before = (moment.astimezone(UTC) - timedelta(days=days)).date().isoformat()
    count = link.execute("DELETE FROM request_days WHERE day < ?", (before,)).rowcount
    if count:
        audit.record(link, who=who, what="requests.forget", target=f"before {before}", days=count)
    return count


def rows_hash(rows: Sequence[Sequence[Any]]) -> str:
    """SHA-256 over the rows, each as a JSON list on a line, in hex."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(list(row), separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def check_requests(link: sqlite3.Connection) -> list[Damage]:
    """Hold the rows against the entries that they were written with, in constant memory."""
    found: list[Damage] = []
    following = 1
    entries = link.execute("SELECT seq, entry FROM audit WHERE instr(entry, ?) > 0 ORDER BY seq", (_MARK,))
    for seq, entry in entries:
        group = _group(entry)
        if group is None:
            continue
        first, count, told = group
        if first != following:
            text = f"the request log jumps to row {first} in entry {seq}, after row {following - 1}"
            found.append(Damage(kind="request", first=seq, last=seq, text=text))
        rows = link.execute(
            f"SELECT {_COLUMNS} FROM request_log WHERE id >= ? AND id < ? ORDER BY id",  # noqa: S608
            (first, first + count),
        ).fetchall()
        if len(rows) != count or rows_hash(rows) != told:
            text = (
                f"rows {first} to {first + count - 1} of the request log are not those that entry {seq}"
                " was written with"
            )
            found.append(Damage(kind="request", first=seq, last=seq, text=text))
        following = first + count
        if len(found) > 100:
            break
    row = link.execute("SELECT MIN(id), MAX(id) FROM request_log").fetchone()
    if row[1] is not None and (row[1] >= following or row[0] < 1):
        text = f"rows {following} to {row[1]} of the request log belong to no entry"
        found.append(Damage(kind="request", first=0, last=0, text=text))
    return found


def _group(entry: str | bytes) -> tuple[int, int, str] | None:
    try:
        read = json.loads(entry)
        if read["what"] != WHAT:
            return None
        first, count = int(read["target"]), int(read["count"])
        return (first, count, str(read["rows"])) if 0 < first < 1 << 53 and 0 < count < 1 << 31 else None
    except (ValueError, KeyError, TypeError):
        return None  # changed: the tree's check says so
