"""The HTTP face: keys, limits, OpenAI's routes. Nothing that a user sends reaches a log.

GET /health (no key), GET /v1/models, POST /v1/chat/completions, POST /v1/completions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.serve.answers import Part, Served, answer
from appliance.serve.requests import Ask, Refused, read_chat, read_text
from appliance.serve.shapes import Shape, event

_log = logging.getLogger(__name__)
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
Handler = Callable[[Request], Awaitable[ASGIApp]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all open requests together, may ask for."""

    body_bytes: int = 1 << 20
    tokens: int = 1024
    open_requests: int = 1024


def make_app(served: Served, check_key: Callable[[str], str | None], limits: Limits) -> Starlette:
    """The endpoint of one model. `check_key` gives the id of a live key, or None."""

    async def health(request: Request) -> ASGIApp:
        ready = await served.engine.health()
        return JSONResponse({"status": "ok" if ready else "starting"}, 200 if ready else 503)

    async def models(request: Request) -> ASGIApp:
        _authorise(request, check_key)
        entry = {"id": served.name, "object": "model", "created": served.created, "owned_by": "cloister"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def complete(read: Callable[..., Ask], chat: bool, request: Request) -> ASGIApp:
        _authorise(request, check_key)
        ask = read(await _body(request, limits.body_bytes), most_tokens=limits.tokens)
        if ask.model != served.name:
            raise Refused("There is no such model here; see /v1/models.", status=404, code="model_not_found")
        return partial(_respond, served, limits, ask, Shape(model=served.name, chat=chat, usage=ask.usage))

    def guarded(handler: Handler) -> Handler:
        async def handle(request: Request) -> ASGIApp:
            try:
                return await handler(request)
            except Exception as problem:
                return _error(served, problem)

        return handle

    async def no_route(request: Request, problem: Exception) -> Response:
        return _error(served, problem)

    chat, text = partial(complete, read_chat, True), partial(complete, read_text, False)
    return Starlette(
        routes=[
            Route("/health", guarded(health)),
            Route("/v1/health", guarded(health)),
            Route("/v1/models", guarded(models)),
            Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
            Route("/v1/completions", guarded(text), methods=["POST"]),
        ],
        exception_handlers={HTTPException: no_route},
    )


def _authorise(request: Request, check_key: Callable[[str], str | None]) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    key_id = check_key(secret.strip()) if scheme.lower() == "bearer" else None
    if key_id is None:
        raise Refused("The API key is missing, wrong or revoked.", status=401, code="invalid_api_key")
    return key_id


async def _body(request: Request, limit: int) -> Any:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > limit:
            raise Refused(f"The body is longer than {limit} bytes.", status=413, code="body_too_large")
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        raise Refused("The body is not valid JSON.") from None


async def _respond(
    served: Served, limits: Limits, ask: Ask, shape: Shape, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer, whole or streamed; a client that goes away ends the work."""
    started = False

    async def whole(parts: AsyncGenerator[Part, None]) -> None:
        body = shape.whole([part async for part in parts])
        await JSONResponse(body)(scope, receive, send)

    async def stream(parts: AsyncGenerator[Part, None]) -> None:
        nonlocal started
        first = await anext(parts)
        started = True
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await _send_part(send, shape.opening() + shape.part(first))
        async for part in parts:
            await _send_part(send, shape.part(part))
        await send({"type": "http.response.body", "body": b""})

    try:
        with _counted(served, limits):
            async with aclosing(answer(served, ask)) as parts:
                await _unless_gone(receive, stream(parts) if ask.stream else whole(parts))
    except Exception as problem:
        failure = _error(served, problem)
        if not started:
            await failure(scope, receive, send)
            return
        await _send_part(send, event(json.loads(bytes(failure.body))))
        await send({"type": "http.response.body", "body": b""})


async def _send_part(send: Send, content: bytes) -> None:
    if content:
        await send({"type": "http.response.body", "body": content, "more_body": True})


@contextmanager
def _counted(served: Served, limits: Limits) -> Iterator[None]:
    stats = served.stats
    if stats.active >= limits.open_requests:
        raise Refused("Too many open requests.", status=429, kind="rate_limit_error", code="too_busy")
    stats.requests += 1
    stats.active += 1
    try:
        yield
    finally:
        stats.active -= 1


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


def _error(served: Served, problem: Exception) -> JSONResponse:
    """The answer to a failure, in OpenAI's shape."""
    if isinstance(problem, ClientDisconnect):
        return JSONResponse({}, 400)  # nobody reads it
    served.stats.errors += 1
    if isinstance(problem, EngineFailed):
        _log.error(problem.message)  # for the operator: it may hold lines of the engine's own log
        text = "The model engine does not answer; ask again in a moment."
        shown = Refused(text, status=503, kind="server_error", code="engine_failed")
    elif isinstance(problem, ModelRejected):
        shown = Refused(f"{problem.message} {problem.hint}", param="messages")
    elif isinstance(problem, HTTPException):
        shown = Refused("There is nothing at this address.", status=problem.status_code)
    elif isinstance(problem, Refused):
        shown = problem
    else:
        # The message of an unforeseen error may quote the request; where it happened does not.
        place = traceback.extract_tb(problem.__traceback__)[-1]
        _log.error("%s in %s, line %s", type(problem).__name__, place.name, place.lineno)
        shown = Refused("The endpoint failed; this has been logged.", status=500, kind="server_error")
    headers = {"www-authenticate": "Bearer"} if shown.status == 401 else None
    return JSONResponse(shown.body(), shown.status, headers)
