"""The engine of choice: llama-server in a process of its own, on a unix socket only we can reach.

Its argv is fixed here; nothing a user sends becomes part of it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx

from appliance.core.errors import EngineFailed
from appliance.serve.engine import Piece, Settings, Stops, log_softmax
from appliance.serve.supervisor import Supervisor

_LONGEST_PATH = 100  # of a unix socket: 107 bytes on Linux
_BIAS = 200.0  # lifts the allowed tokens over all others and costs 2e-5 of their logits' precision
_ANSWER_FIELDS = ["content", "stop_type", "tokens_predicted", "tokens_evaluated"]


def command(binary: Path, model: Path, socket: Path, *, context: int, slots: int, threads: int) -> list[str]:
    """The argv of our llama-server. Every request has `context` tokens to itself."""
    return [
        str(binary),
        *("--model", str(model), "--host", str(socket)),
        *("--ctx-size", str(context * slots), "--parallel", str(slots), "--no-kv-unified"),
        # Every open answer holds one HTTP thread; short requests must not wait for one.
        *("--threads", str(threads), "--threads-http", str(slots + 8)),
        # By default 8 GiB of past prompts stay in memory, and each request is logged.
        *("--cache-ram", "0", "--no-slots", "--log-verbosity", "2"),
        *("--offline", "--no-ui", "--no-agent", "--cors-origins", "localhost"),
    ]


class Native:
    """llama-server on the GGUF file `model`, which may be a descriptor under /proc/self/fd."""

    name = "native"

    def __init__(
        self,
        binary: Path,
        model: Path,
        *,
        folder: Path,
        context: int,
        slots: int,
        threads: int,
        memory: int | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.context, self.slots = context, slots
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._place = folder, _socket_folder(folder)
        socket, key = self._place / "engine.sock", secrets.token_urlsafe(32)
        self._room, self._short = asyncio.Semaphore(slots), asyncio.Semaphore(4)
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=3),
            ),
            base_url="http://engine",
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(None, connect=5.0),
            trust_env=False,
        )
        held = model.parent == Path("/proc/self/fd")
        # A LLAMA_ARG_... of the operator's shell would change our argv behind our back.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
        self.process = Supervisor(
            command(binary, model, socket, context=context, slots=slots, threads=threads),
            environment={**clean, "LLAMA_API_KEY": key},
            log_path=folder / "llama-server.log",
            answers=self._answers,
            clear=lambda: socket.unlink(missing_ok=True),  # left by kill -9, it would stop the bind
            files=(int(model.name),) if held else (),
            memory=memory,
            log=log,
        )

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return self.process.restarts

    async def start(self) -> None:
        """See Engine."""
        await self.process.start()

    async def health(self) -> bool:
        """See Engine."""
        return self.process.ready.is_set()

    async def stop(self) -> None:
        """See Engine."""
        await self.process.stop()
        await self._http.aclose()
        if self._place != self._folder:
            shutil.rmtree(self._place, ignore_errors=True)

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See Engine."""
        async with self._short:
            found = await self._post("/tokenize", {"content": text, "parse_special": special})
        return list(found["tokens"])

    async def choose(
        self, prompt: Sequence[int], allowed: Sequence[int], *, again: bool = False
    ) -> list[float]:
        """See Engine."""
        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "logit_bias": [[token, _BIAS] for token in allowed],
            "samplers": ["top_k"],
            "top_k": len(allowed),
            "n_probs": len(allowed),
            "post_sampling_probs": True,
            "cache_prompt": again,
            "response_fields": ["completion_probabilities"],
        }
        async with self._room:
            found = await self._post("/completion", body)
        top = found["completion_probabilities"][0]["top_probs"]
        odds = {entry["id"]: math.log(entry["prob"]) for entry in top}
        return log_softmax([odds.get(token, -math.inf) for token in allowed])

    async def generate(self, prompt: Sequence[int], settings: Settings) -> AsyncGenerator[Piece, None]:
        """See Engine."""
        body = {
            "prompt": list(prompt),
            "n_predict": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "samplers": ["top_p", "temperature"],
            "seed": -1 if settings.seed is None else settings.seed,
            "cache_prompt": False,
            "stream": True,
            "response_fields": _ANSWER_FIELDS,
        }
        stops = Stops(settings.stop)
        async with self._room:
            for last_try in (False, True):
                begun = False
                try:
                    async with aclosing(self._stream(body, stops)) as pieces:
                        async for piece in pieces:
                            begun = True
                            yield piece
                    return
                except httpx.TransportError as problem:
                    if begun or last_try:
                        raise _lost() from problem
                await asyncio.sleep(0.05)

    async def _stream(self, body: dict[str, Any], stops: Stops) -> AsyncGenerator[Piece, None]:
        await self.process.until_ready()
        # A kept connection that carried a stream is now and then closed by the server without a word.
        closing = {"Connection": "close"}
        async with self._http.stream("POST", "/completion", json=body, headers=closing) as answer:
            if answer.status_code != 200:
                raise _refusal(answer.status_code, await answer.aread())
            async for line in answer.aiter_lines():
                if not line.startswith(("data:", "error:")):
                    continue
                event = json.loads(line.partition(":")[2])
                if "content" not in event:
                    raise _refusal(500, line.partition(":")[2].encode())
                text, cut = stops.feed(event["content"])
                if cut or "stop_type" in event:
                    yield Piece(
                        text=text if cut else text + stops.rest(),
                        finish="length" if not cut and event["stop_type"] == "limit" else "stop",
                        prompt_tokens=event["tokens_evaluated"],
                        completion_tokens=event["tokens_predicted"],
                    )
                    return
                if text:
                    yield Piece(text=text)
        raise httpx.RemoteProtocolError("the stream ended early")

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request, made twice if need be: the first may have met a dying server."""
        for last_try in (False, True):
            await self.process.until_ready()
            try:
                answer = await self._http.post(path, json=body)
                break
            except httpx.TransportError as problem:
                if last_try:
                    raise _lost() from problem
            await asyncio.sleep(0.05)
        if answer.status_code != 200:
            raise _refusal(answer.status_code, answer.content)
        return dict(answer.json())

    async def _answers(self) -> bool:
        try:
            return (await self._http.get("/health", timeout=5.0)).status_code == 200
        except httpx.TransportError:
            return False


def _socket_folder(folder: Path) -> Path:
    """A folder of ours (0700) whose path is short enough for a socket."""
    folder.chmod(0o700)
    if len(os.fsencode(folder / "engine.sock")) <= _LONGEST_PATH:
        return folder
    return Path(tempfile.mkdtemp(prefix="cloister-"))


def _lost() -> EngineFailed:
    return EngineFailed("The model engine stopped in the middle of a request.", "Ask again in a moment.")


def _refusal(status: int, body: bytes) -> EngineFailed:
    """Only the kind of the server's error: its message may quote the request."""
    try:
        kind = json.loads(body)["error"]["type"]
    except (ValueError, KeyError, TypeError):
        kind = "unknown"
    return EngineFailed(f"The model engine refused a request ({status}, {kind}).", "Shorten the request.")
