"""What a key's limits let in: requests a minute, open requests, tokens a day, and which models.

All of it is counted in memory, in the one thread of the endpoint's loop. Rates and open requests are
those of this endpoint; tokens are the site's: every two seconds what was used is added to the table
`key_usage` and its sums are read again, so that several endpoints beside each other, and the next
start, go on from them. A kill loses the last two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError
from appliance.core.home import Home
from appliance.models.registry import Model
from appliance.security import usage
from appliance.security.keys import Grant, utc_now
from appliance.serve.refusals import Refused

SAVE_SECONDS = 2.0
_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_log = logging.getLogger(__name__)
_Counts = dict[tuple[str, str], tuple[int, int, int]]


@dataclass(kw_only=True)
class _Live:
    """Open requests of a key, and when its bucket is full again (ns of the clock)."""

    open: int = 0
    full_at: int = 0


class Admission:
    """The limits of every key, at one endpoint.

    `clock` gives nanoseconds that never go back, `now` the time in UTC.

    Raises:
        NoRoom, Busy, ConfigWrong: the database cannot be read.
    """

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._home, self._clock, self._now = home, clock, now
        self._live: dict[str, _Live] = {}
        self._unsaved: _Counts = {}
        self._saving: _Counts = {}
        with reading(home) as link:
            self._sums = usage.tokens_around(link, now())

    @property
    def held(self) -> int:
        """How many keys have a request open or a bucket that is not full, as of the last save."""
        return len(self._live)

    @contextmanager
    def enter(self, grant: Grant) -> Iterator[None]:
        """Hold one place of the key as long as the block lasts; what is refused counts for nothing.

        Tokens are known only afterwards (`spent`), so what is open when a day's tokens are used up ends.

        Raises:
            Refused: 429 too_many_open, daily_tokens_used or rate_limit_exceeded, with `retry_after`.
        """
        live = self._live.get(grant.id) or _Live()
        if grant.open_requests is not None and live.open >= grant.open_requests:
            raise _too_much(f"This API key has {live.open} requests open, its limit.", "too_many_open", 1)
        self._check_tokens(grant)
        if grant.requests_per_minute is not None:
            self._draw(grant.requests_per_minute, live)
        self._count(grant, 1, 0, 0)
        self._live[grant.id] = live
        live.open += 1
        try:
            yield
        finally:
            live.open -= 1

    def spent(self, grant: Grant, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of an answer, or of a part of one, for today."""
        self._count(grant, 0, prompt_tokens, completion_tokens)

    def used_today(self, grant: Grant) -> int:
        """Tokens of this UTC day: this endpoint's to the last, the others' as of the last save."""
        place = (grant.id, usage.day_of(self._now()))
        mine = sum(sum(counts.get(place, (0, 0, 0))[1:]) for counts in (self._unsaved, self._saving))
        return self._sums.get(place, 0) + mine

    def save(self) -> None:
        """Add what was used to the table and read its sums, in one transaction for all keys.

        Raises:
            NoRoom, Busy, ConfigWrong: it cannot be written; it is kept for the next time.
        """
        self._begin()
        try:
            sums = self._write()
        except BaseException:
            self._put_back()
            raise
        self._settle(sums)

    @asynccontextmanager
    async def saving(self, every: float = SAVE_SECONDS) -> AsyncGenerator[None]:
        """Save every few seconds beside the block, and once at its end; trouble is logged, nothing lost.

        `save` must not be called meanwhile.
        """
        ending = asyncio.Event()
        task = asyncio.create_task(self._keep(ending, every))
        try:
            yield
        finally:
            ending.set()
            await task

    async def _keep(self, ending: asyncio.Event, every: float) -> None:
        last = False
        while not last:
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), every)
            last = ending.is_set()  # read before the save: what comes during it needs another
            self._begin()
            try:
                sums = await asyncio.to_thread(self._write)  # a slow disk must not hold up the loop
            except ApplianceError as problem:
                _log.error("The use of API keys could not be saved: %s", problem.message)
                self._put_back()
            else:
                self._settle(sums)

    def _begin(self) -> None:
        self._unsaved, self._saving = {}, self._unsaved

    def _write(self) -> dict[tuple[str, str], int]:
        """Runs in another thread: nothing else touches `_saving` meanwhile."""
        if not self._saving:
            with reading(self._home) as link:
                return usage.tokens_around(link, self._now())
        with transaction(self._home) as link:
            usage.add(link, self._saving)
            return usage.tokens_around(link, self._now())

    def _settle(self, sums: dict[tuple[str, str], int]) -> None:
        now = self._clock()
        self._sums, self._saving = sums, {}
        self._live = {key: live for key, live in self._live.items() if live.open or live.full_at > now}

    def _put_back(self) -> None:
        kept, self._saving = self._saving, {}
        for place, numbers in kept.items():
            self._add(place, numbers)

    def _check_tokens(self, grant: Grant) -> None:
        limit = grant.tokens_per_day
        if limit is None or self.used_today(grant) < limit:
            return
        now = self._now()
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        left = -((now - day - timedelta(days=1)) // timedelta(seconds=1))  # rounded up
        raise _too_much(
            f"This API key has used its {limit} tokens of today (UTC).", "daily_tokens_used", left
        )

    def _draw(self, rate: int, live: _Live) -> None:
        """Take one from a bucket that holds a minute's worth and fills evenly.

        Kept as the time at which it is full again (GCRA, ITU-T I.371), in whole nanoseconds: exact, and
        never more than `rate` a minute on top of what the bucket held.
        """
        each, now = -(-_MINUTE // rate), self._clock()
        full_at = max(live.full_at, now) + each
        wait = full_at - now - rate * each
        if wait > 0:
            text = f"This API key may send {rate} requests a minute."
            raise _too_much(text, "rate_limit_exceeded", -(-wait // _SECOND))
        live.full_at = full_at

    def _count(self, grant: Grant, *numbers: int) -> None:
        self._add((grant.id, usage.day_of(self._now())), numbers)

    def _add(self, place: tuple[str, str], numbers: Sequence[int]) -> None:
        requests, read, written = self._unsaved.get(place, (0, 0, 0))
        self._unsaved[place] = (requests + numbers[0], read + numbers[1], written + numbers[2])


def names_of(model: Model) -> tuple[str, ...]:
    """The names by which a key may allow a model: its own, and for a file that of what it was made from."""
    if model.kind in ("gguf", "lora") and model.parent:
        return (model.name, model.parent)
    return (model.name,)


def _too_much(message: str, code: str, retry_after: int) -> Refused:
    return Refused(message, status=429, kind="rate_limit_error", code=code, retry_after=max(1, retry_after))
