"""The HTTP face: keys, OpenAI's routes and our own. Nothing that a user sends reaches a log.

docs/endpoint.md lists the routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from appliance.security.keys import Grant
from appliance.serve import metrics
from appliance.serve.embeddings import embedding_body, read_embedding
from appliance.serve.endpoint import Endpoint
from appliance.serve.feedback import give, read_said
from appliance.serve.http import Answering, Failures, json_body
from appliance.serve.logged import Tally, logged
from appliance.serve.openapi import describe
from appliance.serve.page import page_routes
from appliance.serve.refusals import Refused
from appliance.serve.requests import Ask, read_chat, read_text
from appliance.serve.shapes import Shape

Handler = Callable[[Request], Awaitable[ASGIApp]]
CheckKey = Callable[[str], Grant | None]


def make_app(
    endpoint: Endpoint, check_key: CheckKey, failures: Failures, facts: Callable[[], dict[str, Any]]
) -> Starlette:
    """The app of `endpoint`. `check_key` gives what a live key may do, or None; `facts` are its figures."""
    limits = endpoint.limits
    described = describe(body_bytes=limits.body_bytes, tokens=limits.tokens)

    async def health(request: Request) -> ASGIApp:
        if endpoint.log is not None and endpoint.log.stopped:
            return JSONResponse({"status": "log stopped"}, 503)
        ready = await endpoint.house.health()
        return JSONResponse({"status": "ok" if ready else "starting"}, 200 if ready else 503)

    async def openapi(request: Request) -> ASGIApp:
        return JSONResponse(described)

    async def models(request: Request) -> ASGIApp:
        entries = [_entry(endpoint, name) for name in endpoint.names(_authorise(request, check_key))]
        return JSONResponse({"object": "list", "data": entries})

    async def model(request: Request) -> ASGIApp:
        name = request.path_params["name"]
        if not endpoint.may(_authorise(request, check_key), name):
            raise Refused("There is no such model here; see /v1/models.", status=404, code="model_not_found")
        return JSONResponse(_entry(endpoint, name))

    async def figures(request: Request) -> ASGIApp:
        if _authorise(request, check_key).models:
            # The figures are of all keys and models; a key for some may not see the others'.
            raise Refused("This key is for some models only.", status=403, kind="permission_error")
        return Response(metrics.page(facts()), media_type=metrics.CONTENT_TYPE)

    async def complete(request: Request, read: Callable[..., Ask], *, chat: bool) -> ASGIApp:
        grant = _authorise(request, check_key)
        ask = read(await json_body(request, limits.body_bytes), most_tokens=limits.tokens)
        shape = Shape(model=ask.model, chat=chat, usage=ask.usage)
        return Answering(endpoint.reply(grant, ask), shape, failures, streamed=ask.stream)

    async def chat(request: Request) -> ASGIApp:
        return await complete(request, read_chat, chat=True)

    async def text(request: Request) -> ASGIApp:
        return await complete(request, read_text, chat=False)

    async def embeddings(request: Request) -> ASGIApp:
        grant = _authorise(request, check_key)
        ask = read_embedding(await json_body(request, limits.body_bytes))
        vectors, tokens = await endpoint.embed(grant, ask)
        return JSONResponse(embedding_body(ask, vectors, tokens))

    async def collections(request: Request) -> ASGIApp:
        grant = _authorise(request, check_key)
        found = await asyncio.to_thread(endpoint.library.listed, grant)
        return JSONResponse({"object": "list", "data": found})

    async def passage(request: Request) -> ASGIApp:
        grant = _authorise(request, check_key)
        address = request.query_params.get("address", "")
        tally = Tally(model="documents")
        with endpoint.admission.enter(grant):
            async with logged(endpoint.log, grant.id, address, tally) as on_disk:
                found = await asyncio.to_thread(endpoint.library.open, grant, address)
                await on_disk()
            return JSONResponse(found)

    async def feedback(request: Request) -> ASGIApp:
        grant = _authorise(request, check_key)
        body = await json_body(request, limits.body_bytes)
        said = read_said(body)
        with endpoint.admission.enter(grant):
            home = endpoint.library.home
            made = await asyncio.to_thread(give, home, endpoint.answers, grant.id, body, endpoint.labels)
        endpoint.heard(said.answer, said.thumb, said.ratings)
        return JSONResponse({"id": made})

    async def no_route(request: Request, problem: Exception) -> Response:
        return failures.answer(problem)

    handlers: dict[str, tuple[Handler, Sequence[str]]] = {
        "/health": (health, ["GET"]),
        "/v1/health": (health, ["GET"]),
        "/openapi.json": (openapi, ["GET"]),
        "/metrics": (figures, ["GET"]),
        "/v1/models": (models, ["GET"]),
        "/v1/models/{name:path}": (model, ["GET"]),
        "/v1/chat/completions": (chat, ["POST"]),
        "/v1/completions": (text, ["POST"]),
        "/v1/embeddings": (embeddings, ["POST"]),
        "/v1/collections": (collections, ["GET"]),
        "/v1/passages": (passage, ["GET"]),
        "/v1/feedback": (feedback, ["POST"]),
    }
    routes: list[BaseRoute] = [
        Route(path, _guarded(handler, failures), methods=list(methods))
        for path, (handler, methods) in handlers.items()
    ]
    app = Starlette(routes=[*routes, *page_routes()], exception_handlers={HTTPException: no_route})
    app.router.redirect_slashes = False  # it would send people where the Host header says
    return app


def _guarded(handler: Handler, failures: Failures) -> Handler:
    async def handle(request: Request) -> ASGIApp:
        try:
            return await handler(request)
        except Exception as problem:
            return failures.answer(problem)

    return handle


def _entry(endpoint: Endpoint, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": endpoint.house.created, "owned_by": "cloister"}


def _authorise(request: Request, check_key: CheckKey) -> Grant:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    grant = check_key(secret.strip()) if scheme.lower() == "bearer" else None
    if grant is None:
        raise Refused(
            "The API key is missing, wrong, expired or revoked.", status=401, code="invalid_api_key"
        )
    return grant
