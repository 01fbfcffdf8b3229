"""What happened to each arm of a route: numbers, written in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.core.db import reading, transaction
from appliance.core.home import Home
from appliance.serve import routes
from appliance.serve.significance import Share

# A rating of n counts once in "ratings" and n times in "rating_sum".
WHAT = ("requests", "sent_on", "up", "down", "errors", "ratings", "rating_sum")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Thumbs up among all thumbs, errors among all requests, the mean rating."""

    thumbs: Share
    errors: Share
    rating: float | None


class Counts:
    """What happened to each arm, added up in memory and written in batches. Safe between threads."""

    def __init__(
        self, home: Home, *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._home, self._every, self._clock, self._last = home, every, clock, clock()
        self._waiting: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def note(self, route: str, model: str, what: str, by: int = 1) -> None:
        """Count one thing of WHAT; a rating of 4 is "ratings" by 1 and "rating_sum" by 4.

        Raises:
            ValueError: it is not one of WHAT.
        """
        if what not in WHAT:
            raise ValueError(what)
        with self._lock:
            key = (route, model, what)
            self._waiting[key] = self._waiting.get(key, 0) + by

    def due(self) -> bool:
        """Whether it is time to flush."""
        return bool(self._waiting) and self._clock() - self._last >= self._every

    def flush(self) -> None:
        """Write what is waiting; what cannot be written waits on.

        Raises:
            NoRoom, Busy, ConfigWrong: the database takes nothing.
        """
        with self._lock:
            taken, self._waiting = self._waiting, {}
        self._last = self._clock()
        try:
            if taken:
                _add(self._home, taken)
        except BaseException:
            with self._lock:
                for key, count in taken.items():
                    self._waiting[key] = self._waiting.get(key, 0) + count
            raise


def counts(home: Home, name: str) -> dict[str, dict[str, int]]:
    """What was counted, by model; all of WHAT for both models of the route.

    Raises:
        NotFound: there is no such route.
    """
    route = routes.get(home, name)
    found = {model: dict.fromkeys(WHAT, 0) for model in (route.a, route.b)}
    with reading(home) as link:
        for row in link.execute("SELECT model, what, count FROM route_counts WHERE route = ?", (name,)):
            found.setdefault(row["model"], dict.fromkeys(WHAT, 0))[row["what"]] = row["count"]
    return found


def arms(counted: Mapping[str, Mapping[str, int]], route: routes.Route) -> tuple[Arm, Arm]:
    """The counts of A and of B as shares."""
    first, second = (_arm(counted[model]) for model in (route.a, route.b))
    return first, second


def _arm(one: Mapping[str, int]) -> Arm:
    errors = min(one["errors"], one["requests"])  # an error may be written before its request is
    return Arm(
        thumbs=Share(hits=one["up"], of=one["up"] + one["down"]),
        errors=Share(hits=errors, of=one["requests"]),
        rating=one["rating_sum"] / one["ratings"] if one["ratings"] else None,
    )


def _add(home: Home, taken: Mapping[tuple[str, str, str], int]) -> None:
    """Add counts; those of a route that was removed meanwhile go nowhere."""
    with transaction(home) as link:
        known = {row["name"] for row in link.execute("SELECT name FROM routes")}
        link.executemany(
            "INSERT INTO route_counts (route, model, what, count) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (route, model, what) DO UPDATE SET count = count + excluded.count",
            [(*key, count) for key, count in taken.items() if key[0] in known],
        )
