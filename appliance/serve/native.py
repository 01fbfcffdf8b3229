"""The engine of choice: llama-server in a process of its own, on a unix socket only we can reach.

Its argv is fixed here; nothing a user sends becomes part of it. Which slot a request gets, and what
it may reuse there, is the business of places.py.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse

from appliance.serve.checked import Loading, unchecked
from appliance.serve.engine import Piece, Settings, Stops, check_request, log_softmax
from appliance.serve.grammars import check_schema
from appliance.serve.llama_server import LlamaServer, common_flags, devices, joined
from appliance.serve.places import Places, Wanted
from appliance.serve.slots import Choice
from appliance.serve.wire import Lost, lost

_BIAS = 200.0  # lifts the allowed tokens over all others and costs 2e-5 of their logits' precision
_CACHED = "timings/cache_n"
_TIMES = ("timings/prompt_ms", "timings/predicted_ms")
_ANSWER_FIELDS = ["content", "stop_type", "tokens_predicted", "tokens_evaluated", _CACHED, *_TIMES]


def command(
    binary: Path,
    model: Path,
    socket: Path,
    *,
    context: int,
    slots: int,
    threads: int,
    adapters: Sequence[Path] = (),
) -> list[str]:
    """The argv of our llama-server. Every request has `context` tokens to itself."""
    return [
        *common_flags(binary, model, socket, threads=threads),
        *("--ctx-size", str(context * slots), "--parallel", str(slots), "--no-kv-unified"),
        # Every open answer holds one HTTP thread; short requests must not wait for one.
        *("--threads-http", str(slots + 8), "--slot-save-path", str(socket.parent)),
        # By default a request gets the most similar slot, whoever it belongs to.
        *("--slot-prompt-similarity", "0"),
        *(("--lora", joined(adapters)) if adapters else ()),
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
        adapters: Sequence[Path] = (),
        loading: Loading = unchecked,
        memory: int | None = None,
        sleep_after: float | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.context, self.slots = context, slots
        self._threads, self._adapters, self._gpu = threads, len(adapters), devices(binary)
        self.server = LlamaServer(
            partial(
                command,
                binary,
                model,
                context=context,
                slots=slots,
                threads=threads,
                adapters=adapters,
            ),
            folder=folder,
            files=[model, *adapters],
            loading=loading,
            memory=memory,
            sleep_after=sleep_after,
            log=log,
        )
        self.process = self.server.process
        self._places = Places(self.server, slots, len(adapters), log)
        self._short = asyncio.Semaphore(4)
        self._prompt_tokens = self._cached_tokens = 0

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return self.process.restarts

    async def start(self) -> None:
        """See Engine."""
        self._places.sweep()
        await self.server.start()

    async def health(self) -> bool:
        """See Engine."""
        return self.server.healthy()

    async def stop(self) -> None:
        """See Engine."""
        self._places.sweep()
        await self.server.stop()
        await self._places.ended()

    def facts(self) -> dict[str, Any]:
        """See Engine."""
        return {
            "engine": self.name,
            "gpu": ", ".join(self._gpu),
            "slots": self.slots,
            "context": self.context,
            "threads": self._threads,
            "adapters": self._adapters,
            "asleep": self.server.idle.asleep,
            "rss_mb": round(self.server.memory() / 2**20, 1),
            "prompt_tokens": self._prompt_tokens,
            "cached_tokens": self._cached_tokens,
        }

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See Engine."""
        async with self._short, self.server.idle.awake():
            found = await self.server.post("/tokenize", {"content": text, "parse_special": special})
        return list(found["tokens"])

    async def warm(self, prefix: Sequence[int], adapter: int | None = None) -> None:
        """See Engine."""
        check_request(prefix, self.context, adapter, self._adapters)
        async with self.server.idle.awake():
            await self._places.warm(prefix, adapter)

    async def choose(
        self,
        prompt: Sequence[int],
        allowed: Sequence[int],
        *,
        owner: str,
        shared: int = 0,
        adapter: int | None = None,
    ) -> list[float]:
        """See Engine."""
        check_request(prompt, self.context, adapter, self._adapters)
        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "logit_bias": [[token, _BIAS] for token in allowed],
            "samplers": ["top_k"],
            "top_k": len(allowed),
            "n_probs": len(allowed),
            "post_sampling_probs": True,
            "response_fields": ["completion_probabilities", _CACHED],
        }
        wanted = Wanted(prompt=list(prompt), owner=owner, shared=shared, adapter=adapter)
        async with self.server.idle.awake(), self._places.take(wanted) as choice:
            found = await self._places.held(choice, self._asked(choice, wanted, body))
            self._places.note(choice, wanted)
        self._count(len(prompt), found[_CACHED])
        top = found["completion_probabilities"][0]["top_probs"]
        # A probability below what the server's numbers hold comes as 0, one that is no number as null.
        odds = {entry["id"]: math.log(entry["prob"]) for entry in top if entry["prob"]}
        return log_softmax([odds.get(token, -math.inf) for token in allowed])

    async def generate(
        self,
        prompt: Sequence[int],
        settings: Settings,
        *,
        owner: str,
        shared: int = 0,
        adapter: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See Engine."""
        check_request(prompt, self.context, adapter, self._adapters)
        body: dict[str, Any] = {
            "prompt": list(prompt),
            "n_predict": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "samplers": ["top_p", "temperature"],
            "seed": -1 if settings.seed is None else settings.seed,
            "stream": True,
            "response_fields": _ANSWER_FIELDS,
        }
        if settings.schema is not None:
            check_schema(settings.schema)
            body["json_schema"] = settings.schema
        stops = Stops(settings.stop)
        wanted = Wanted(prompt=list(prompt), owner=owner, shared=shared, adapter=adapter)
        async with self.server.idle.awake():
            for last_try in (False, True):
                begun = False
                try:
                    async with self._places.take(wanted) as choice:
                        answer, kept = await self._places.held(choice, self._begun(choice, wanted, body))
                        self._places.note(choice, wanted)
                        with closing(answer):
                            async for piece in self._pieces(answer, stops, kept):
                                begun = True
                                yield piece
                    return
                except Lost as problem:
                    # What may have killed the server is not given to it twice.
                    if begun or last_try or settings.schema is not None:
                        raise lost() from problem
                await asyncio.sleep(0.05)

    async def _pieces(self, answer: ClientResponse, stops: Stops, kept: int) -> AsyncGenerator[Piece, None]:
        """The pieces. An answer that we cut has no counts of the server's: `kept` is what it reused."""
        began = time.monotonic()
        async for together in self.server.wire.events(answer):
            said = ""
            for event in together:
                text, cut = stops.feed(event["content"])
                said += text
                if cut or "stop_type" in event:
                    cached = event.get(_CACHED, min(kept, event["tokens_evaluated"] - 1))
                    self._count(event["tokens_evaluated"], cached)
                    yield Piece(
                        text=said if cut else said + stops.rest(),
                        finish="length" if not cut and event["stop_type"] == "limit" else "stop",
                        prompt_tokens=event["tokens_evaluated"],
                        cached_tokens=cached,
                        completion_tokens=event["tokens_predicted"],
                        seconds=sum(event[name] for name in _TIMES) / 1000
                        if _TIMES[0] in event
                        else time.monotonic() - began,
                    )
                    return
            if said:
                yield Piece(text=said, tokens=len(together))
        raise Lost("the stream ended early")

    async def _begun(
        self, choice: Choice, wanted: Wanted, body: dict[str, Any]
    ) -> tuple[ClientResponse, int]:
        """A streamed answer that the server has begun, and how many tokens it at least reuses."""
        fields, kept = await self._places.prepare(choice, wanted)
        await self.process.until_ready()
        return await self.server.wire.open("/completion", body | fields), kept

    async def _asked(self, choice: Choice, wanted: Wanted, body: dict[str, Any]) -> dict[str, Any]:
        fields, _ = await self._places.prepare(choice, wanted)
        return await self.server.post("/completion", body | fields)

    def _count(self, prompt: int, cached: int) -> None:
        self._prompt_tokens += prompt
        self._cached_tokens += cached
