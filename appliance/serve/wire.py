"""HTTP to a llama-server of ours, over its unix socket: JSON out, JSON or a stream of events in."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp

from appliance.core.errors import ApplianceError, EngineFailed
from appliance.serve.grammars import schema_refused

Lost = aiohttp.ClientError  # the server went away, before or in the middle of an answer
_URL = "http://engine"
_LONGEST_LINE = 1 << 20
_BEAT = 0.00125  # seconds an open stream; what comes faster is read, and passed on, together
_LONGEST_BEAT = 0.01


class Wire:
    """A client for one socket. Open it in a running event loop; closed, it opens again.

    It connects to /dev/fd/N, an open handle of the socket: a name so short that no internet address is,
    which is what the jail lets through (appliance/security/airgap/filter.py). N may have four digits.
    """

    def __init__(self, socket: Path, key: str) -> None:
        self._socket, self.key = socket, key
        self._session: aiohttp.ClientSession | None = None
        self._streams = 0
        self._handle: int | None = None

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            Lost: the server went away. EngineFailed, ConfigWrong: it refused; see `refusal`.
        """
        async with self._open().post(_URL + path, json=body) as answer:
            content = await answer.read()
        if answer.status != 200:
            raise refusal(answer.status, content, schema="json_schema" in body)
        return dict(json.loads(content))

    async def open(self, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """A streamed answer, as soon as the server has begun with it; `close` it to make it stop.

        Raises:
            Lost: the server went away. EngineFailed, ConfigWrong: it refused; see `refusal`.
        """
        # A kept connection that carried a stream is now and then closed by the server without a word.
        closing = {"Connection": "close"}
        answer = await self._open().post(_URL + path, json=body, headers=closing)
        if answer.status != 200:
            async with answer:
                raise refusal(answer.status, await answer.read(), schema="json_schema" in body)
        return answer

    async def events(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The events of an open answer, those together that have come together: fewer steps when it is late.

        Between two looks lies a beat, the longer the more answers are open. A small model writes
        thousands of tokens a second, and each one told alone costs the cores that compute them.

        Raises:
            Lost: the server went away. EngineFailed: it failed.
        """
        self._streams += 1
        try:
            held = b""
            async for chunk in answer.content.iter_any():
                seen = time.monotonic()
                *lines, held = (held + chunk).split(b"\n")
                if len(held) > _LONGEST_LINE:
                    raise refusal(500, b"")
                if found := [event for line in lines if (event := _event(line)) is not None]:
                    yield found
                await _until(answer, seen + min(_LONGEST_BEAT, _BEAT * self._streams))
        finally:
            self._streams -= 1

    async def healthy(self) -> bool:
        """Whether the server says that it is ready."""
        try:
            self._look()
            async with self._open().get(f"{_URL}/health", timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
        except (Lost, TimeoutError):
            return False

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _look(self) -> int:
        """The handle, of the socket that is there now: each start of a server makes a new one.

        Raises:
            Lost: there is none.
        """
        try:
            fresh = os.open(self._socket, os.O_PATH | os.O_CLOEXEC)
        except OSError as problem:
            raise Lost(f"no socket: {problem.strerror}") from problem
        if self._handle is None:
            self._handle = fresh
        else:
            os.dup2(fresh, self._handle, inheritable=False)
            os.close(fresh)
        return self._handle

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            handle = self._look() if self._handle is None else self._handle
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(f"/dev/fd/{handle}", limit=0, keepalive_timeout=3),
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_LONGEST_LINE,
            )
        return self._session


async def _until(answer: aiohttp.ClientResponse, due: float) -> None:
    """Leave what comes until `due` to the socket."""
    transport = answer.connection and answer.connection.transport
    rest = due - time.monotonic()
    if transport is None or rest <= 0:
        return
    transport.pause_reading()
    try:
        await asyncio.sleep(rest)
    finally:
        transport.resume_reading()


def _event(line: bytes) -> dict[str, Any] | None:
    if line.startswith(b"data:"):
        event: dict[str, Any] = json.loads(line[5:])
        if "error" in event:
            raise refusal(500, line[5:])
        return event
    if line.startswith(b"error:"):
        raise refusal(500, line[6:])
    return None


def lost() -> EngineFailed:
    """What a request hears that cannot be made again."""
    return EngineFailed("The model engine stopped in the middle of a request.", "Ask again in a moment.")


def refusal(status: int, body: bytes, *, schema: bool = False) -> ApplianceError:
    """Only the kind of the server's error: its message may quote the request.

    With a `schema` in the request, an invalid one is what the server means: prompt and settings are ours.
    """
    try:
        kind = json.loads(body)["error"]["type"]
    except (ValueError, KeyError, TypeError):
        kind = "unknown"
    if schema and status == 400 and kind == "invalid_request_error":
        return schema_refused()
    return EngineFailed(f"The model engine refused a request ({status}, {kind}).", "Shorten the request.")
