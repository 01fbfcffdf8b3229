"""Holds the rows of API keys against the audit log: a key is obeyed only as the log says that it was made.

The log is read once, and from then on only what was appended to it.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from appliance.core.home import Home
from appliance.security.log.entries import since, told_before

MADE, ENDED = "key.new", "key.revoke"
COLUMNS = ("sha256", "name", "models", "collections", "expires")
"""Columns of `api_keys` that the entry of a new key has, too; so it has LIMITS."""

LIMITS = ("requests_per_minute", "tokens_per_day", "open_requests")
_LISTS = ("models", "collections")


class KeyLog:
    """What the log says of keys, as far as it was read: `read` goes on from there."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._first: str | None = None
        self._read = 0
        self._made: dict[str, dict[str, Any]] = {}
        self._ended: set[str] = set()

    def read(self, link: sqlite3.Connection) -> bool:
        """Read what was appended; whether any of it was of keys."""
        row = link.execute("SELECT MAX(seq), (SELECT leaf FROM audit WHERE seq = 1) FROM audit").fetchone()
        newest, first = int(row[0] or 0), row[1]
        entries: list[dict[str, Any]] = []
        if first != self._first or newest < self._read:  # another log: the one before was set aside
            self._made, self._ended, self._read = {}, set(), 0
            entries, self._first = told_before(self._home, MADE, ENDED, link=link), first
        new = [*entries, *since(link, self._read, MADE, ENDED)]
        self._read = newest
        for entry in new:
            if entry["what"] == ENDED:
                self._ended.add(entry["target"])
            else:
                self._made.setdefault(entry["target"], _columns(entry))
        return bool(new)

    def made(self, row: sqlite3.Row) -> bool:
        """Whether a row, with its id, is as the log says that the key was made.

        What an entry of an older version leaves out is not judged.
        """
        made = self._made.get(row["id"])
        return made is not None and all(row[name] == value for name, value in made.items())

    def ended(self, key_id: str) -> bool:
        """Whether the log says that a key was revoked; that ends it for good."""
        return key_id in self._ended


def _columns(entry: dict[str, Any]) -> dict[str, Any]:
    """What the row of a key must have."""
    held = {name: entry[name] for name in (*COLUMNS, *LIMITS) if name in entry}
    return {name: json.dumps(value) if name in _LISTS else value for name, value in held.items()}
