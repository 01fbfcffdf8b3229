"""Both engines: what is reused between requests, adapters by request, JSON schemas."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import serve_support as support
from test_serve_engine import BOTH, running

from appliance.core.errors import ApplianceError, ConfigWrong
from appliance.serve.engine import Engine, Piece, Settings, pick_engine
from appliance.serve.native import Native
from appliance.serve.places import Places, Wanted

SHORT = Settings(max_tokens=6)
PUBLIC, OTHER, LETTER = (
    random.Random(seed).choices(range(300, 4000), k=size) for seed, size in ((1, 60), (2, 50), (3, 30))
)


async def ask(engine: Engine, prompt: list[int], owner: str, shared: int = 0, **rest: int | None) -> Piece:
    pieces = [p async for p in engine.generate(prompt, SHORT, owner=owner, shared=shared, **rest)]
    return Piece(
        text="".join(piece.text for piece in pieces),
        cached_tokens=pieces[-1].cached_tokens,
        prompt_tokens=pieces[-1].prompt_tokens,
    )


async def cached(engine: Engine, prompt: list[int], owner: str, shared: int = 0, **rest: int | None) -> int:
    return (await ask(engine, prompt, owner, shared, **rest)).cached_tokens


@BOTH
def test_a_public_start_is_there_for_everybody_and_nothing_else(tmp_path: Path, name: str) -> None:
    async def use(engine: Engine) -> None:
        whole = [*PUBLIC, *LETTER]
        cold = await ask(engine, whole, "first")
        assert cold.cached_tokens == 0
        await engine.warm(PUBLIC)
        mine = await ask(engine, whole, "alice", len(PUBLIC))
        assert (mine.text, mine.cached_tokens) == (cold.text, len(PUBLIC))
        for _ in range(3):
            assert await cached(engine, whole, "bob", len(PUBLIC)) >= len(PUBLIC)
        assert await cached(engine, whole, "alice", len(PUBLIC)) == len(whole) - 1
        assert await cached(engine, whole, "eve", len(PUBLIC)) == len(PUBLIC)
        assert await cached(engine, whole, "eve, who calls nothing public") == 0
        facts = engine.facts()
        assert facts["prompt_tokens"] == 8 * len(whole)
        assert facts["cached_tokens"] == 3 * len(PUBLIC) + 3 * (len(whole) - 1)

    running(tmp_path, name, use, slots=2)


@BOTH
def test_one_slot_goes_from_hand_to_hand(tmp_path: Path, name: str) -> None:
    async def use(engine: Engine) -> None:
        whole = [*PUBLIC, *LETTER]
        await engine.warm(PUBLIC)
        assert await cached(engine, whole, "alice", len(PUBLIC)) == len(PUBLIC)
        assert await cached(engine, whole, "bob", len(PUBLIC)) == len(PUBLIC)
        assert await cached(engine, whole, "bob", len(PUBLIC)) == len(whole) - 1
        assert await cached(engine, whole, "alice") == 0
        # A start that both call public, but nobody warmed.
        for owner in ("alice", "bob"):
            assert await cached(engine, [*OTHER, *LETTER], owner, len(OTHER)) == (owner == "bob") * len(OTHER)
        # What an engine answered is as private as what it was asked.
        answer = await ask(engine, PUBLIC, "alice", len(PUBLIC))
        spelt = [*PUBLIC, *(await engine.tokenize(answer.text, False)), 300]
        assert await cached(engine, spelt, "bob", len(PUBLIC)) == len(PUBLIC)
        # The odds of tokens are asked under the same rule.
        before = engine.facts()["cached_tokens"]
        await engine.choose(whole, [5, 6], owner="alice", shared=len(PUBLIC))
        await engine.choose([*whole, 5], [5, 6], owner="alice", shared=len(PUBLIC))
        await engine.choose([*whole, 5], [5, 6], owner="bob", shared=len(PUBLIC))
        seen = engine.facts()["cached_tokens"] - before
        assert seen == len(PUBLIC) + len(whole) + len(PUBLIC)

    running(tmp_path, name, use, slots=1)


@BOTH
@pytest.mark.parametrize("shared", [0, len(PUBLIC)])
def test_a_request_that_is_given_up_opens_nothing(tmp_path: Path, name: str, shared: int) -> None:
    """Given up at any point, also before the engine has touched the slot of somebody else."""

    async def use(engine: Engine) -> None:
        hers, his = [*PUBLIC, *LETTER], [*PUBLIC, *OTHER]
        await engine.warm(PUBLIC)
        for turn in range(32):
            await cached(engine, hers, "alice", shared)
            asking = asyncio.create_task(cached(engine, his, "bob", shared))
            for _ in range(turn // 2):
                await asyncio.sleep(0)
            if turn >= 16:
                await asyncio.sleep(0.0005 * (turn - 15))
            asking.cancel()
            await asyncio.wait([asking])
            if turn % 2:
                assert await cached(engine, hers, "bob", shared) <= len(PUBLIC)
            else:
                assert await cached(engine, his, "eve", shared) == shared

    running(tmp_path, name, use, slots=1)


def test_a_slot_is_nobody_elses_before_the_server_is_done_with_it() -> None:
    """What was asked for and given up may otherwise be done later, in somebody else's slot."""
    places = Places(SimpleNamespace(process=SimpleNamespace(starts=1)), 1, 0, print)
    wanted = Wanted(prompt=[1, 2], owner="bob", shared=0, adapter=None)
    steps: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        steps.append("done")

    async def use() -> None:
        async with places.take(wanted) as choice:
            await places.held(choice, work())

    async def go() -> None:
        asking = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled() and not steps
        async with places.take(wanted):
            assert steps == ["done"]

    asyncio.run(go())


def test_every_slot_is_warm_from_the_start(tmp_path: Path) -> None:
    async def use(engine: Engine) -> None:
        assert isinstance(engine, Native)
        await engine.warm(PUBLIC)
        for file in engine.server.place.glob("*.slot"):
            file.unlink()
        asks = (cached(engine, [*PUBLIC, *LETTER], f"user {n}", len(PUBLIC)) for n in range(4))
        assert await asyncio.gather(*asks) == [len(PUBLIC)] * 4

    running(tmp_path, "native", use, slots=4)


def test_a_public_start_outlives_the_server(tmp_path: Path) -> None:
    async def use(engine: Engine) -> None:
        assert isinstance(engine, Native)
        whole = [*PUBLIC, *LETTER]
        await engine.warm(PUBLIC)
        first = await ask(engine, whole, "alice", len(PUBLIC))
        os.kill(engine.process.pid or 0, signal.SIGKILL)
        for owner in ("alice", "bob"):
            again = await ask(engine, whole, owner, len(PUBLIC))
            assert (again.text, again.cached_tokens) == (first.text, len(PUBLIC))
        # Its file is gone: the answer still comes.
        for file in engine.server.place.glob("*.slot"):
            file.unlink()
        assert (await ask(engine, whole, "carol", len(PUBLIC))).text == first.text

    running(tmp_path, "native", use, slots=1)
    assert not list(tmp_path.glob("*.slot"))


def with_adapters(
    folder: Path, name: str, paths: tuple[Path, ...], use: Callable[[Engine], Awaitable[list[str]]]
) -> list[str]:
    return running(folder, name, use, slots=2, adapters=paths)


@BOTH
def test_every_request_names_its_adapter(tmp_path: Path, name: str) -> None:
    """Three models on one base: each answers as it does alone, whoever had the slot before."""
    prompts = [[*PUBLIC, *LETTER], [*PUBLIC, 500, 600, 700]]

    def alone(adapter: int | None) -> Callable[[Engine], Awaitable[list[str]]]:
        async def use(engine: Engine) -> list[str]:
            return [(await ask(engine, prompt, "tests", adapter=adapter)).text for prompt in prompts]

        return use

    paths = support.adapters()
    expected = {
        None: with_adapters(tmp_path / "none", name, (), alone(None)),
        0: with_adapters(tmp_path / "0", name, paths[:1], alone(0)),
        1: with_adapters(tmp_path / "1", name, paths[1:], alone(0)),
    }
    assert len({tuple(texts) for texts in expected.values()}) == 3

    async def use(engine: Engine) -> list[str]:
        await engine.warm(PUBLIC)
        await engine.warm(PUBLIC, 1)
        for _ in range(2):
            for adapter, texts in expected.items():
                for prompt, text in zip(prompts, texts, strict=True):
                    found = await ask(engine, prompt, "tests", len(PUBLIC), adapter=adapter)
                    assert found.text == text
                    assert adapter == 0 or found.cached_tokens >= len(PUBLIC)
        first = await cached(engine, [*OTHER, *LETTER], "alice", len(OTHER), adapter=0)
        other = await cached(engine, [*OTHER, *LETTER], "alice", len(OTHER), adapter=1)
        assert (first, other) == (0, 0)
        together = await asyncio.gather(
            *(ask(engine, prompts[0], "tests", len(PUBLIC), adapter=adapter) for adapter in expected)
        )
        assert [one.text for one in together] == [texts[0] for texts in expected.values()]
        with pytest.raises(ConfigWrong):
            await cached(engine, PUBLIC, "tests", adapter=2)
        return []

    with_adapters(tmp_path / "both", name, paths, use)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    async def start(name: str, path: Path) -> None:
        engine = pick_engine(
            name, support.gguf(), folder=tmp_path / "e", context=512, slots=1, threads=1, adapters=[path]
        )
        try:
            await engine.start()
        finally:
            await engine.stop()

    for name in ("native", "in-process"):
        with pytest.raises(ApplianceError):
            asyncio.run(start(name, support.gguf()))
    with pytest.raises(ConfigWrong):
        asyncio.run(start("native", tmp_path / "a,b.gguf"))


PATIENT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "urgent": {"type": "boolean"}},
    "required": ["name", "urgent"],
    "additionalProperties": False,
}


@BOTH
def test_answers_keep_to_a_schema(tmp_path: Path, name: str) -> None:
    async def use(engine: Engine) -> None:
        for seed in range(4):
            drawn = Settings(max_tokens=200, temperature=1.5, seed=seed, schema=PATIENT)
            pieces = [piece async for piece in engine.generate(PUBLIC, drawn, owner="tests")]
            found = json.loads("".join(piece.text for piece in pieces))
            assert found.keys() == {"name", "urgent"}
            assert len(found["name"]) <= 8 and isinstance(found["urgent"], bool)
            assert pieces[-1].finish == "stop"
        cut = Settings(max_tokens=3, schema=PATIENT)
        assert [piece async for piece in engine.generate(PUBLIC, cut, owner="tests")][-1].finish == "length"

    running(tmp_path, name, use)


@BOTH
def test_a_schema_that_makes_no_grammar_is_refused_and_not_repeated(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "Wilhelmina"

    async def use(engine: Engine) -> None:
        for broken in (
            {"type": secret},
            {"$ref": f"https://example.org/{secret}"},
            {"properties": 5, "title": secret},
            {"type": "object", "properties": {secret: {"type": "string", "minLength": 5000}}},
            {"type": "array", "items": {"const": secret}, "minItems": 10**9},
            {"type": "string", "title": secret, "pattern": "^(((a{1,999}b){1,999}c){1,999}d){1,999}$"},
            {"title": secret, "allOf": [{"$ref": "#"}]},
        ):
            with pytest.raises(ConfigWrong) as refused:
                await anext(engine.generate(PUBLIC, Settings(max_tokens=9, schema=broken), owner="tests"))
            assert secret not in refused.value.message + refused.value.hint
        # What llama.cpp prints when it makes a grammar must not reach a log either.
        for printed in (
            {"type": "object", "properties": {secret: {"anyOf": []}}, "required": [secret]},
            {"type": "string", "pattern": f"{secret}("},
            {"$ref": f"#/$defs/{secret}", "$defs": {secret: {"$ref": f"#/$defs/{secret}"}}},
        ):
            with suppress(ConfigWrong):
                await anext(engine.generate(PUBLIC, Settings(max_tokens=9, schema=printed), owner="tests"))
        assert (await ask(engine, PUBLIC, "tests")).text

    running(tmp_path, name, use)
    assert secret not in "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert secret not in "".join(capfd.readouterr())
