"""What the audit log says: rows of other tables that grant something are held against it.

A log that was damaged and set aside (renewed.py) still speaks with the part that was intact, as long as its
file is the one that was set aside. Entries that cannot be read say nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.security.log.renewed import folder_of, renewals


def entries(home: Home, *kinds: str) -> list[str]:
    """The times (UTC, ISO 8601) of the entries whose `what` is one of `kinds`, oldest first."""
    return [str(entry["at"]) for entry in told(home, *kinds)]


def told(home: Home, *kinds: str, link: sqlite3.Connection | None = None) -> list[dict[str, Any]]:
    """Those entries themselves, of this log, oldest first. One look at each entry of the log."""
    if link is None:
        with reading(home) as own:
            return since(own, 0, *kinds)
    return since(link, 0, *kinds)


def since(link: sqlite3.Connection, seq: int, *kinds: str) -> list[dict[str, Any]]:
    """Those numbered above `seq`."""
    return _read(link.execute(*_query(kinds, "seq > ?", seq)), kinds)


def told_ever(home: Home, *kinds: str, link: sqlite3.Connection | None = None) -> list[dict[str, Any]]:
    """As `told`, after what the logs that were set aside say of it."""
    if link is None:
        with reading(home) as own:
            return told_ever(home, *kinds, link=own)
    return [*told_before(home, *kinds, link=link), *told(home, *kinds, link=link)]


def told_before(home: Home, *kinds: str, link: sqlite3.Connection | None = None) -> list[dict[str, Any]]:
    """What the logs that were set aside say of it, as far as each was intact."""
    found: list[dict[str, Any]] = []
    for one in renewals(home, link):
        found += _kept(folder_of(home, one.number) / "log.db", one.evidence, one.intact, kinds)
    return found


def untold(home: Home, moment: str) -> bool:
    """Whether what was done at that time may have no entry, because its log was set aside since."""
    before = renewals(home)
    return bool(before) and _utc(moment) <= _utc(before[-1].at)


@lru_cache(maxsize=64)  # a log that was set aside does not change; it is hashed once a process
def _kept(path: Path, sha256: str, intact: int, kinds: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    if not path.is_file() or sha256_file(path) != sha256:
        return ()
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as link:
        link.row_factory = sqlite3.Row
        return tuple(_read(link.execute(*_query(kinds, "seq <= ?", intact)), kinds))


def _query(kinds: tuple[str, ...], where: str, seq: int) -> tuple[str, tuple[Any, ...]]:
    """JSON writes a quote in a text as a backslash and a quote, so no text of an entry looks like this."""
    some = " OR ".join(["instr(entry, ?)"] * len(kinds))
    marks = (f'"what":"{kind}"' for kind in kinds)
    return f"SELECT entry FROM audit WHERE {where} AND ({some}) ORDER BY seq", (seq, *marks)  # noqa: S608


def _read(rows: Iterable[sqlite3.Row], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(row["entry"])
            if entry["what"] in kinds:
                found.append(entry)
    return found


def _utc(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)
