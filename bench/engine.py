"""The engine behind the endpoint: first token, client cost, sleep; on the shipped base.

First token: the same system text of about 200 tokens before every question, each from another user.
Ours reuses it from a warm slot; bare llama-server computes all of it (cold slots). Client: CPU of this
process for reading a stream of llama-server, aiohttp beside httpx, each event parsed. Sleep: resident
memory and the time of the first answer after it, ours (the process ends) beside llama-server's own
--sleep-idle-seconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import appliance.models
from appliance.serve.engine import Settings, native_binary
from appliance.serve.llama_server import LlamaServer
from appliance.serve.native import Native, command
from appliance.serve.wire import events
from bench.table import row, show

_PUBLIC, _OWN, _SLOTS, _CONTEXT = 200, 30, 4, 512
_TOKENS = 400


def run(options: Any) -> None:
    """Measure the three."""
    from quantize.convert import convert
    from quantize.source import open_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "base.gguf"
        base = Path(appliance.models.__file__).parent / "base"
        convert(open_checkpoint(base), model, "F16", name="base", facts={})
        rows = asyncio.run(_all(model, Path(folder), options.rounds or 40))
    show(rows, options.json)


async def _all(model: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    binary = native_binary()
    if binary is None:
        raise SystemExit("This installation has no llama-server.")

    def argv(socket: Path) -> list[str]:
        return command(binary, model, socket, context=_CONTEXT, slots=_SLOTS, threads=1)

    ours = Native(
        binary,
        model,
        folder=folder / "ours",
        context=_CONTEXT,
        slots=_SLOTS,
        threads=1,
        sleep_after=3600,
    )
    bare = LlamaServer(argv, folder=folder / "bare", files=[])
    await ours.start()
    await bare.start()
    try:
        first = await _first_token(ours, bare, rounds)
        client = [found for clients in (1, 4, 8) for found in await _client(bare, clients)]
        return first + client + await _sleep(ours, argv, folder)
    finally:
        await ours.stop()
        await bare.stop()


async def _first_token(ours: Native, bare: LlamaServer, rounds: int) -> list[dict[str, Any]]:
    dice = random.Random(0)
    public = [1, *dice.choices(range(300, 4000), k=_PUBLIC - 1)]
    await ours.warm(public)

    def mine(prompt: list[int], user: int) -> AsyncGenerator[Any, None]:
        return ours.generate(prompt, Settings(max_tokens=8), owner=f"user {user}", shared=_PUBLIC)

    def theirs(prompt: list[int], user: int) -> AsyncGenerator[Any, None]:
        body = {"prompt": prompt, "n_predict": 8, "stream": True, "cache_prompt": False, "temperature": 0}
        return _events(bare, body)

    rows = []
    for clients in (1, 4):
        asks = {"ours": mine, "bare": theirs}
        taken: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(rounds):
            for name, ask in list(asks.items())[:: 1 if turn % 2 else -1]:
                prompts = [[*public, *dice.choices(range(300, 4000), k=_OWN)] for _ in range(clients)]
                asked = [_first(ask(prompt, turn * 8 + i)) for i, prompt in enumerate(prompts)]
                taken[name] += await asyncio.gather(*asked)
        middle = {name: statistics.median(times) * 1e3 for name, times in taken.items()}
        case = f"first token, {clients} at once"
        rows.append(row("engine", case, "p50, warm/bare cold", middle["ours"], middle["bare"], "ms"))
    facts = ours.facts()
    share = facts["cached_tokens"] / facts["prompt_tokens"]
    return [*rows, row("engine", "first token", "prompt tokens reused", share, None, "of all")]


async def _events(bare: LlamaServer, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
    with closing(await bare.wire.open("/completion", body)) as answer:
        async for event in events(answer):
            yield event


async def _first(answer: AsyncGenerator[Any, None]) -> float:
    """Seconds to the first event; the answer is read to its end."""
    start = time.perf_counter()
    async with aclosing(answer):
        await anext(answer)
        taken = time.perf_counter() - start
        async for _ in answer:
            pass
    return taken


async def _timed(work: Awaitable[None]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def _client(bare: LlamaServer, clients: int) -> list[dict[str, Any]]:
    """CPU of this process for each token of streamed answers."""
    import httpx

    body = {"prompt": [1, 5, 6], "n_predict": _TOKENS, "temperature": 2.0, "ignore_eos": True, "stream": True}
    other = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(bare.place / "engine.sock")),
        base_url="http://engine",
        headers={"Authorization": f"Bearer {bare.wire.key}"},
        timeout=600,
        trust_env=False,
    )

    async def with_aiohttp() -> int:
        async with aclosing(_events(bare, body)) as found:
            return sum([1 async for _ in found])

    async def with_httpx() -> int:
        count = 0
        headers = {"Connection": "close"}
        async with other.stream("POST", "/completion", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    json.loads(line[5:])
                    count += 1
        return count

    spent: dict[str, list[float]] = {"aiohttp": [], "httpx": []}
    asks: dict[str, Callable[[], Awaitable[int]]] = {"aiohttp": with_aiohttp, "httpx": with_httpx}
    for _ in range(3):
        for name, ask in asks.items():
            start = time.process_time()
            tokens = sum(await asyncio.gather(*(ask() for _ in range(clients))))
            spent[name].append((time.process_time() - start) * 1e3 / tokens)
    await other.aclose()
    middle = {name: statistics.median(times) for name, times in spent.items()}
    return [
        row(
            "engine",
            f"reading, {clients} streams",
            "aiohttp/httpx",
            middle["aiohttp"],
            middle["httpx"],
            "CPU ms/token",
        )
    ]


async def _sleep(ours: Native, argv: Callable[[Path], list[str]], folder: Path) -> list[dict[str, Any]]:
    body = {"prompt": [1, 5], "n_predict": 1}
    other = LlamaServer(
        lambda socket: [*argv(socket), "--sleep-idle-seconds", "1"], folder=folder / "other", files=[]
    )
    await other.start()
    await other.post("/completion", body)
    awake = ours.facts()["rss_mb"]
    await asyncio.sleep(3)
    theirs = other.memory() / 2**20
    their_waking = await _timed(_quiet(other.post("/completion", body)))
    await other.stop()
    await ours.server.idle.now()
    mine = ours.facts()["rss_mb"]
    my_waking = await _timed(_quiet(ours.choose([1, 5], [6, 7], owner="")))
    return [
        row("engine", "asleep", "resident memory, awake", awake, None, "MB"),
        row("engine", "asleep", "resident memory, ours/llama-server's", mine, theirs, "MB"),
        row("engine", "asleep", "first answer after it", my_waking * 1e3, their_waking * 1e3, "ms"),
    ]


async def _quiet(work: Awaitable[Any]) -> None:
    await work
