"""What was asked of the endpoint, written before anything is answered: `RequestLog`.

Two rows a request: "asked" (who, which model, the prompt as HMAC-SHA256 under a random key of its UTC day
and one of the site), which must be on the disk before the first word goes out, and "answered" (which
model, by which route, how many tokens). A thread writes them in groups: at once when somebody waits, but
not sooner than 5 ms after the group before, and within 50 ms when nobody does. Each group is one audit
entry with the SHA-256 of its rows, so the tree holds the rows too. The day's key says whether a prompt
that somebody holds is the one that was sent; it is deleted after 30 days, and from then on nothing links
a row to text.

Whoever waits for a group that cannot be written gets the error, after 30 s where somebody else holds the
database: an endpoint that cannot log does not answer. What became of requests that were answered is written
with a later group. After an I/O error nothing is tried again, since what was written may be lost unnoticed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from appliance.core.db import connect, writing
from appliance.core.errors import ApplianceError, Busy, NoRoom
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log.request_rows import WHAT, day_key, prompt_mac, rows_hash

WAITED_SECONDS, GROUP_SECONDS = 0.005, 0.05
AGAIN_SECONDS, _MOST_LEFT = 1.0, 10_000
PATIENCE_SECONDS = 30.0  # that one request waits for the database, and `close` for what is left
TRY_SECONDS = 1.0  # of that in one go, so that a group nobody waits for does not keep others waiting
_NEVER = float("inf")
_log = logging.getLogger(__name__)
Done = Callable[[ApplianceError | None], None]


@dataclass(frozen=True, slots=True)
class _Line:
    request: str
    kind: str
    at: float
    key: str
    model: str
    route: str = ""
    read: int = 0
    written: int = 0
    prompt: Any = None
    since: float = field(default_factory=time.monotonic)
    done: Done | None = None


def utc_now() -> float:
    """Seconds since 1970."""
    return time.time()


class RequestLog:
    """The writer of one endpoint. `close` writes what is left."""

    def __init__(self, home: Home, *, who: str = "endpoint", clock: Callable[[], float] = utc_now) -> None:
        self._home, self._who, self._clock = home, who, clock
        self._lines: list[_Line] = []
        self._wake = threading.Condition()
        self._closing = False
        self._closed = _NEVER  # of time.monotonic()
        self._broken: ApplianceError | None = None
        self._link: sqlite3.Connection | None = None
        self._keys: dict[str, bytes] = {}  # of the day that was last
        self._due, self._free = _NEVER, 0.0  # of time.monotonic(): the next group; when a waited one may be
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether nothing more is taken, so that nothing is answered until the endpoint is started again."""
        return self._broken is not None or not self._thread.is_alive()

    def asked(
        self, key: str, model: str, prompt: Any, *, route: str = ""
    ) -> tuple[str, asyncio.Future[None]]:
        """Take a request in: its id, and what to wait for before any of the answer is given.

        `prompt` is kept in memory until it is hashed, as canonical JSON (sorted keys, no spaces, UTF-8).

        Raises:
            (when awaited) NoRoom, Busy, ApplianceError: it could not be written; give no answer.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def done(problem: ApplianceError | None) -> None:
            try:
                loop.call_soon_threadsafe(_settle, waiting, problem)
            except RuntimeError:
                _log.error("The request log outlived its endpoint.")

        request = secrets.token_hex(8)
        self._put(_Line(request, "asked", self._clock(), key, model, route, prompt=prompt, done=done))
        return request, waiting

    def answered(self, request: str, key: str, model: str, *, route: str, read: int, written: int) -> None:
        """Take in what became of it; written with the next group, and waited for by nobody."""
        self._put(_Line(request, "answered", self._clock(), key, model, route, read, written))

    def close(self) -> None:
        """Write what is left and end the thread."""
        with self._wake:
            self._closing, self._closed = True, time.monotonic()
            self._wake.notify()
        self._thread.join()
        if self._link is not None:
            self._link.close()

    def _put(self, line: _Line) -> None:
        with self._wake:
            if self._closing or self._broken or not self._thread.is_alive():
                problem = self._broken or _dead()
            else:
                due = time.monotonic() + GROUP_SECONDS if line.done is None else self._free
                self._lines.append(line)
                if due < self._due:
                    self._due = due
                    self._wake.notify()
                return
        if line.done is not None:
            line.done(problem)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._closing and (wait := self._due - time.monotonic()) > 0:
                    self._wake.wait(None if wait == _NEVER else wait)
                group, self._lines, self._due = self._lines, [], _NEVER
                if self._closing and not group:
                    return
            problem = self._try(group) if group else None
            with self._wake:
                self._free = time.monotonic() + WAITED_SECONDS
                if any(line.done for line in self._lines):
                    self._due = max(self._due, self._free)
                if problem is not None and self._broken is None and not self._closing:
                    self._put_back(group)
            for line in group:
                if line.done is not None:
                    line.done(problem)

    def _put_back(self, group: Sequence[_Line]) -> None:
        """What became of answers that were given has nobody who would send it again."""
        left = [line for line in group if line.done is None]
        if left:
            self._lines = [*left, *self._lines][:_MOST_LEFT]
            self._due = min(self._due, time.monotonic() + AGAIN_SECONDS)

    def _try(self, group: Sequence[_Line]) -> ApplianceError | None:
        if self._broken is not None:
            return self._broken
        try:
            self._write_within(group)
        except (NoRoom, Busy) as problem:
            if any(line.done for line in group):
                _log.error("Requests could not be logged, so they are not answered: %s", problem.message)
            return problem
        except Exception as problem:
            self._broken = problem if isinstance(problem, ApplianceError) else _dead()
            _log.error(
                "The request log has stopped, and with it this endpoint's answers: %s",
                problem.message if isinstance(problem, ApplianceError) else type(problem).__name__,
            )
            return self._broken
        return None

    def _write_within(self, group: Sequence[_Line]) -> None:
        """Write when the database is free; who has waited longest says how long to wait for that."""
        while True:
            try:
                return self._write(group)
            except Busy:
                since = [line.since for line in group if line.done is not None]
                if not since and not self._closing:
                    raise  # it is tried again, with those who came meanwhile
                # Two goes: one now, and the first of those who wait behind this group.
                if time.monotonic() + 2 * TRY_SECONDS > min([self._closed, *since]) + PATIENCE_SECONDS:
                    raise
                time.sleep(GROUP_SECONDS)

    def _write(self, group: Sequence[_Line]) -> None:
        if self._link is None:
            self._link = connect(self._home)
            self._link.execute(f"PRAGMA busy_timeout={TRY_SECONDS * 1000:.0f}")
        link, keys = self._link, dict(self._keys)
        with writing(self._home, link):
            row = link.execute("SELECT seq FROM sqlite_sequence WHERE name = 'request_log'").fetchone()
            first = 1 if row is None else row[0] + 1
            rows = [self._row(number, line, link, keys) for number, line in enumerate(group, start=first)]
            # Few calls: each gives the interpreter away, and a busy loop is slow to give it back.
            link.executemany("INSERT INTO request_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            audit.record(
                link, who=self._who, what=WHAT, target=str(first), count=len(rows), rows=rows_hash(rows)
            )
        self._keys = keys

    def _row(
        self, number: int, line: _Line, link: sqlite3.Connection, keys: dict[str, bytes]
    ) -> tuple[Any, ...]:
        moment = datetime.fromtimestamp(line.at, UTC)
        day, prompt = moment.date().isoformat(), ""
        if line.kind == "asked":
            if day not in keys:
                keys.clear()
                keys[day] = day_key(self._home, link, moment, who=self._who)
            prompt = prompt_mac(keys[day], line.prompt)
        at = moment.isoformat(timespec="milliseconds")
        told = (line.request, line.kind, at, line.key, line.model, line.route)
        return (number, *told, line.read, line.written, prompt)


def _settle(waiting: asyncio.Future[None], problem: ApplianceError | None) -> None:
    if waiting.done():
        return
    if problem is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(problem)


def _dead() -> ApplianceError:
    return ApplianceError("The request log takes nothing more.", "Start the endpoint again and see its log.")
