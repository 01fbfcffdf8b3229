"""Clients that neither finish their header nor read their answer are cut off: they must not hold a place.

uvicorn times out idle connections, but not a header that arrives a byte a minute (slowloris), nor an
answer that nobody reads, which would keep a slot of the engine. Bodies have their limit in http.py.
"""

from __future__ import annotations

import asyncio

import h11

from appliance.serve.malformed import AnsweringProtocol

HEADER_SECONDS, READ_SECONDS = 15.0, 60.0
_REST_SECONDS = 2.0  # for the rest of a body that nobody wants any more


class PatientProtocol(AnsweringProtocol):
    """uvicorn's HTTP/1.1, with seconds for a whole header, and for reading what is ready to be read."""

    header_seconds, read_seconds = HEADER_SECONDS, READ_SECONDS
    _limit: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection has to say something soon."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(self.header_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """The clock runs while a header is not whole."""
        super().data_received(data)
        whole = self.conn.their_state is not h11.IDLE
        if self.transport.is_closing():
            return
        if self._rest is not None and self.conn.their_state is not h11.SEND_BODY:
            self._rest.cancel()
            self._rest = None
        if whole and self._limit is not None:
            self._limit.cancel()
            self._limit = None
        elif not whole and self._limit is None:
            self._limit = self.loop.call_later(self.header_seconds, self._give_up)

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(self.read_seconds, self._give_up)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def on_response_complete(self) -> None:
        """Who still sends the body of a request that has been answered is listened to no longer than that."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._rest is None:
            self._rest = self.loop.call_later(_REST_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        for timer in (self._limit, self._stalled, self._rest):
            if timer is not None:
                timer.cancel()
        self._limit = self._stalled = self._rest = None
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self.transport.abort()  # close() would wait for the client to read the rest
