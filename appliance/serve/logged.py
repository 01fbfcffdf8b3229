"""A request in the request log: nothing of its answer is given before it is on the disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from appliance.security.log.requests import RequestLog


@dataclass(kw_only=True)
class Tally:
    """What became of one request: who answered it, by which route, and the tokens read and written."""

    model: str
    route: str = ""
    read: int = 0
    written: int = 0


@asynccontextmanager
async def logged(
    log: RequestLog | None, key: str, prompt: Any, tally: Tally
) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Log a request of the API key `key` to `tally.model`, and at the end of the block what became of it.

    What it yields is to be awaited before each part of the answer goes out; it raises what kept the log
    from being written. `model` must be a name that this endpoint knows, never one that only the client has.
    """
    if log is None:
        yield _at_once
        return
    request, written = log.asked(key, tally.model, prompt, route=tally.route)

    async def on_disk() -> None:
        await written

    try:
        yield on_disk
    finally:
        written.cancel()  # a client that went away does not wait; the row is written all the same
        if written.cancelled() or written.exception() is None:
            log.answered(request, key, tally.model, route=tally.route, read=tally.read, written=tally.written)


async def _at_once() -> None:
    return None
