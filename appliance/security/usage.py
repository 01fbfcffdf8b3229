"""What each key has used, by UTC day: counts only, added up over all endpoints of the site."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from appliance.core.db import reading
from appliance.core.home import Home


@dataclass(frozen=True, kw_only=True)
class Day:
    """What one key used on one UTC day."""

    day: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


def day_of(moment: datetime) -> str:
    """The UTC day of a moment, as YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


def add(link: sqlite3.Connection, counts: Mapping[tuple[str, str], tuple[int, int, int]]) -> None:
    """Add requests, prompt and completion tokens by (key, day) inside the caller's transaction."""
    link.executemany(
        "INSERT INTO key_usage (key, day, requests, prompt_tokens, completion_tokens) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (key, day) DO UPDATE SET requests = requests + excluded.requests,"
        " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
        " completion_tokens = completion_tokens + excluded.completion_tokens",
        [(key, day, *numbers) for (key, day), numbers in counts.items()],
    )


def tokens_around(link: sqlite3.Connection, moment: datetime) -> dict[tuple[str, str], int]:
    """Tokens by (key, day) of the day before, the day itself and the day after."""
    first, last = day_of(moment - timedelta(days=1)), day_of(moment + timedelta(days=1))
    rows = link.execute(
        "SELECT key, day, prompt_tokens + completion_tokens AS tokens FROM key_usage"
        " WHERE day BETWEEN ? AND ?",
        (first, last),
    )
    return {(row["key"], row["day"]): row["tokens"] for row in rows}


def by_key(home: Home, now: datetime, days: int = 30) -> dict[str, list[Day]]:
    """The days on which each key was used, newest first, of the last `days` days, today among them."""
    found: dict[str, list[Day]] = {}
    with reading(home) as link:
        rows = link.execute(
            "SELECT key, day, requests, prompt_tokens, completion_tokens FROM key_usage WHERE day > ?"
            " ORDER BY day DESC",
            (day_of(now - timedelta(days=days)),),
        )
        for row in rows:
            numbers = dict(row)
            found.setdefault(numbers.pop("key"), []).append(Day(**numbers))
    return found
