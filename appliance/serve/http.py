"""The parts of HTTP that every route shares: bodies, errors, streams, clients that go away."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from appliance.core.errors import (
    ApplianceError,
    ConfigWrong,
    EngineFailed,
    ModelChanged,
    ModelRejected,
    NotFound,
)
from appliance.serve.answers import Part
from appliance.serve.refusals import Refused
from appliance.serve.shapes import Shape, event

_log = logging.getLogger(__name__)
_BODY_SECONDS = 60.0
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def json_body(request: Request, limit: int) -> Any:
    """The body as JSON.

    Raises:
        Refused: it is longer than `limit` bytes, takes longer than 60 seconds, or is no JSON.
    """
    found = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                found += chunk
                if len(found) > limit:
                    raise Refused(
                        f"The body is longer than {limit} bytes.", status=413, code="body_too_large"
                    )
    except TimeoutError:
        raise Refused("The body did not arrive in time.", status=408, code="body_too_slow") from None
    try:
        return json.loads(found, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused("The body is not valid JSON.") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


class Failures:
    """Puts errors into OpenAI's shape; counts what was refused to a client and what failed here."""

    def __init__(self) -> None:
        self.refused = self.failed = 0

    def answer(self, problem: Exception) -> JSONResponse:
        """The answer to a failure. Nothing of the request is in it or in the log."""
        if isinstance(problem, ClientDisconnect):
            return JSONResponse({}, 400)  # nobody reads it
        shown = _shown(problem)
        if shown.status < 500:
            self.refused += 1
        else:
            self.failed += 1
        headers = {"www-authenticate": "Bearer"} if shown.status == 401 else {}
        if shown.retry_after is not None:
            headers["retry-after"] = str(shown.retry_after)
        return JSONResponse(shown.body(), shown.status, headers)


def _shown(problem: Exception) -> Refused:
    if isinstance(problem, Refused):
        return problem
    if isinstance(problem, EngineFailed):
        _log.error(problem.message)  # for the operator: it may hold lines of the engine's own log
        text = "The model engine does not answer; ask again in a moment."
        return Refused(text, status=503, kind="server_error", code="engine_failed", retry_after=1)
    if isinstance(problem, ModelChanged):
        _log.error("%s %s", problem.message, problem.hint)  # for the operator: it names the file
        text = (
            "This model's file is not the one that was registered: its SHA-256 differs. It is not served"
            " until whoever runs this endpoint has quantised or imported it again."
        )
        return Refused(text, status=503, kind="server_error", code="model_changed")
    if isinstance(problem, ModelRejected):
        return Refused(f"{problem.message} {problem.hint}", param="messages")
    if isinstance(problem, NotFound):
        return Refused(problem.message, status=404, code="not_found")
    if isinstance(problem, ConfigWrong):
        return Refused(f"{problem.message} {problem.hint}")
    if isinstance(problem, ApplianceError):  # a full disk, a locked database
        _log.error(problem.message)
        return Refused("The endpoint cannot do this now.", status=503, kind="server_error", retry_after=5)
    if isinstance(problem, HTTPException):
        text = "There is nothing at this address."
        if problem.status_code == 405:
            text = "This address does not take this method."
        return Refused(text, status=problem.status_code)
    # The message of an unforeseen error may quote the request; where it happened does not.
    place = traceback.extract_tb(problem.__traceback__)[-1]
    _log.error("%s in %s, line %s", type(problem).__name__, place.name, place.lineno)
    return Refused("The endpoint failed; this has been logged.", status=500, kind="server_error")


class Answering:
    """The response of a completion: whole or streamed; a client that goes away ends the work."""

    def __init__(
        self, parts: AsyncGenerator[Part, None], shape: Shape, failures: Failures, *, streamed: bool
    ) -> None:
        self._parts, self._shape, self._failures, self._streamed = parts, shape, failures, streamed
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            work = self._stream(send) if self._streamed else self._whole(scope, receive, send)
            await _unless_gone(receive, work)
        except Exception as problem:
            failure = self._failures.answer(problem)
            if not self._started:
                await failure(scope, receive, send)
                return
            await _send_part(send, event(json.loads(bytes(failure.body))))
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._parts.aclose()

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._shape.whole([part async for part in self._parts])
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        first = await anext(self._parts)
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await _send_part(send, self._shape.opening() + self._shape.part(first))
        async for part in self._parts:
            await _send_part(send, self._shape.part(part))
        await send({"type": "http.response.body", "body": b""})


async def _send_part(send: Send, content: bytes) -> None:
    if content:
        await send({"type": "http.response.body", "body": content, "more_body": True})


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, or stop it when the client closes the connection."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(work), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()
