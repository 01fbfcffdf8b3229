"""An endpoint for tests of the page: real keys, page and feedback; what the model says is scripted."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from appliance.core.home import Home
from appliance.security import keys
from appliance.serve.feedback import Answers, give
from appliance.serve.page import page_routes
from appliance.serve.requests import Refused

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script><b>bold</b>"
ADDRESS = "policies/leave.md#120-480"
CITED = {
    "id": 1,
    "address": ADDRESS,
    "file": "policies/leave.md",
    "page": 3,
    "quote": "30 days <i>of</i> leave",
    "verified": True,
}
PASSAGE = {
    "before": "Section 4.\n",
    "text": "Staff have 30 days <i>of</i> leave a year.",
    "after": "\nSection 5.",
    "file": "policies/leave.md",
    "page": 3,
    "stale": False,
}


class Scripted:
    """What the endpoint will say, and what it was asked."""

    def __init__(self, home: Home) -> None:
        self.begin(home)

    def begin(self, home: Home) -> None:
        """Anew, for another test and its home."""
        self.home, self.answers = home, Answers()
        self.collections: list[dict[str, Any]] | None = [{"id": "policies", "files": 12}]
        self.passage = PASSAGE
        self.cited = CITED
        self.asked: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.refusal: tuple[int, dict[str, str]] | None = None

    def app(self) -> Starlette:
        """The routes that the page knows."""
        routes = [
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/collections", self._guarded(self._collections)),
            Route("/v1/passages", self._guarded(self._passages)),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/feedback", self._guarded(self._feedback), methods=["POST"]),
        ]
        return Starlette(routes=[*page_routes(), *routes])

    def _guarded(self, handler: Any) -> Any:
        async def handle(request: Request) -> Response:
            try:
                secret = request.headers.get("authorization", "").removeprefix("Bearer ")
                found: Any = keys.check(self.home, secret)
                if found is None:
                    raise Refused("The API key is missing, wrong or revoked.", status=401)
                return await handler(request, getattr(found, "id", found))
            except Refused as problem:
                return JSONResponse(problem.body(), problem.status)

        return handle

    async def _models(self, request: Request, key_id: str) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "inbox-int8"}, {"id": "other"}]})

    async def _collections(self, request: Request, key_id: str) -> Response:
        if self.collections is None:
            raise Refused("There is nothing at this address.", status=404)
        return JSONResponse({"data": self.collections})

    async def _passages(self, request: Request, key_id: str) -> Response:
        if request.query_params["address"] != ADDRESS:
            raise Refused("There is no such passage.", status=404)
        return JSONResponse(self.passage)

    async def _feedback(self, request: Request, key_id: str) -> Response:
        body = await request.json()
        return JSONResponse({"id": await asyncio.to_thread(give, self.home, self.answers, key_id, body)})

    async def _chat(self, request: Request, key_id: str) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.refusal is not None:
            status, headers = self.refusal
            return JSONResponse({"error": {"message": "no"}}, status, headers)
        return StreamingResponse(self._stream(request, body, key_id), media_type="text/event-stream")

    async def _stream(
        self, request: Request, body: dict[str, Any], key_id: str
    ) -> AsyncGenerator[bytes, None]:
        question = body["messages"][-1]["content"]
        said: dict[str, Any] = {"answer_id": f"answer-{len(self.asked)}"}
        pieces, pause = ["It ", "is ", "a ", "test."], 0.05
        if question == "hostile":
            pieces = [HOSTILE[:9], HOSTILE[9:], " [1]"]
            said |= {"citations": [CITED | {"file": HOSTILE}], "unsupported": [HOSTILE]}
        elif question == "endless":
            pieces, pause = [f"word{number} " for number in range(1000)], 0.02
        elif question == "cut":
            said = {}
        elif question == "label":
            pieces, said = ["billing"], said | {"label": "billing", "confidence": 0.87}
        elif body.get("collections"):
            pieces = ["You have 30 days of leave a year [1].", " Ask your lead first [2]."]
            said |= {"citations": [self.cited], "unsupported": ["Ask your lead first."]}
        try:
            for piece in pieces:
                yield _event({"delta": {"content": piece}, "finish_reason": None})
                await asyncio.sleep(pause)
            if question == "cut":
                return
            self.answers.keep(
                said["answer_id"],
                key_id,
                model=body["model"],
                messages=body["messages"],
                text="".join(pieces),
            )
            yield _event({"delta": {}, "finish_reason": "stop"}, cloister=said) + b"data: [DONE]\n\n"
            self.ended.append("done")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


def _event(choice: dict[str, Any], **rest: Any) -> bytes:
    body = {"model": "inbox-int8", "choices": [{"index": 0, **choice}], **rest}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """The app on a free port of this machine; its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, ws="none", log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < limit, "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
