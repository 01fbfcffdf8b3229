"""Several models on one endpoint: which answers, which are in memory, which a key may use."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
import serve_support as support

from appliance.core.errors import ApplianceError
from appliance.core.home import open_home
from appliance.security.keys import Grant
from appliance.serve.admission import Admission
from appliance.serve.counts import Counts
from appliance.serve.embeddings import EmbedAsk
from appliance.serve.endpoint import Endpoint
from appliance.serve.engine import Engine
from appliance.serve.header import read_header
from appliance.serve.house import House, Offer
from appliance.serve.inprocess import InProcess
from appliance.serve.library import Library
from appliance.serve.refusals import Refused
from appliance.serve.requests import read_chat
from appliance.serve.routes import Routes

ALL = Grant(id="k1", name="all")


def house(made: list[str], **more: Any) -> House:
    """A label model and a plain one, each a file of its own; `made` hears which are loaded."""
    paths = {"labels": support.gguf(True), "plain": support.gguf(False)}

    def engine(name: str) -> Engine:
        made.append(name)
        return InProcess(paths[name], context=256, slots=2, threads=1)

    offers = [
        Offer(
            name=name,
            file=name,
            header=read_header(path),
            task=read_header(path).task,
            aliases=(f"my-{name}",),
        )
        for name, path in paths.items()
    ]
    return House(offers, {name: lambda name=name: engine(name) for name in paths}, **more)


def endpoint_of(house: House) -> Endpoint:
    home = open_home(Path(tempfile.mkdtemp(prefix="cloister-tests-")))
    return Endpoint(
        house=house,
        admission=Admission(home),
        library=Library(home=home),
        routes=Routes(home),
        counts=Counts(home),
    )


async def ask(endpoint: Endpoint, grant: Grant, model: str, **more: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "cancel my visit"}], **more}
    request = read_chat(body, most_tokens=4)
    return "".join([part.piece.text async for part in endpoint.reply(grant, request)])


def test_each_model_answers_under_its_names() -> None:
    async def go() -> None:
        made: list[str] = []
        endpoint = endpoint_of(house(made))
        await endpoint.house.start()
        try:
            assert made == ["labels", "plain"]
            label = await ask(endpoint, ALL, "labels")
            assert label in support.LABELS and label == await ask(endpoint, ALL, "my-labels")
            assert await ask(endpoint, ALL, "plain")
            assert dict(endpoint.stats.by_model) == {"labels": 2, "plain": 1}
            with pytest.raises(Refused, match="no such model"):
                await ask(endpoint, ALL, "other")
        finally:
            await endpoint.house.stop()

    asyncio.run(go())


def test_what_is_used_stays_and_what_is_idle_makes_room() -> None:
    async def go() -> None:
        made: list[str] = []
        endpoint = endpoint_of(house(made, most=1))
        await endpoint.house.start()
        try:
            assert made == ["labels"]
            first = await ask(endpoint, ALL, "labels")
            await ask(endpoint, ALL, "plain")
            assert made == ["labels", "plain"] and list(endpoint.house.engines()) == ["plain"]
            held = endpoint.house.use(endpoint.house.find("plain"))  # type: ignore[arg-type]
            async with held:
                waiting = asyncio.create_task(ask(endpoint, ALL, "labels"))
                await asyncio.sleep(0.1)
                assert not waiting.done() and list(endpoint.house.engines()) == ["plain"]
            assert await waiting == first
            assert made == ["labels", "plain", "labels"]
            both = await asyncio.gather(*(ask(endpoint, ALL, name) for name in ("labels", "plain") * 4))
            assert both[0::2] == [first] * 4
        finally:
            await endpoint.house.stop()

    asyncio.run(go())


class Slow(InProcess):
    """An engine that takes a while to end, and tells whether it did."""

    ended = 0

    async def stop(self) -> None:
        await asyncio.sleep(0.2)
        await super().stop()
        Slow.ended += 1


def test_who_hangs_up_while_an_engine_ends_does_not_leave_it_running() -> None:
    async def go() -> None:
        endpoint = endpoint_of(house([], most=1))
        engines = {
            name: lambda name=name: Slow(support.gguf(name == "labels"), context=256, slots=1, threads=1)
            for name in ("labels", "plain")
        }
        endpoint.house = House(endpoint.house.offers, engines, most=1)
        await endpoint.house.start()
        Slow.ended = 0
        task = asyncio.create_task(ask(endpoint, ALL, "plain"))
        await asyncio.sleep(0.1)  # it waits for the other engine to end
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.4)
        assert Slow.ended == 1 and endpoint.stats.active == endpoint.stats.queued == 0
        assert await ask(endpoint, ALL, "plain")
        await endpoint.house.stop()

    asyncio.run(go())


def test_a_busy_model_does_not_keep_the_other_out() -> None:
    """Clients ask for one model without a gap, a stream of it goes on to its end; the other has a turn."""

    async def go() -> None:
        made: list[str] = []
        endpoint = endpoint_of(house(made, most=1, patience=0.3))
        await endpoint.house.start()
        busy, turns = True, 0

        async def hammer() -> None:
            nonlocal turns
            while busy:
                await ask(endpoint, ALL, "labels")
                turns += 1

        async def stream() -> int:
            body = {"model": "labels", "messages": [{"role": "user", "content": "on"}], **support.ENDLESS}
            request = read_chat(
                body | {"response_format": {"type": "text"}, "max_tokens": 240}, most_tokens=240
            )
            parts = [part async for part in endpoint.reply(ALL, request)]
            return parts[-1].piece.completion_tokens

        try:
            long = asyncio.create_task(stream())
            clients = [asyncio.create_task(hammer()) for _ in range(3)]
            await asyncio.sleep(0.2)
            for _ in range(2):  # and a second time, against those who had to wait meanwhile
                before = turns
                assert await asyncio.wait_for(ask(endpoint, ALL, "plain"), 60)
                await asyncio.sleep(0.1)
                while turns < before + 6:
                    await asyncio.sleep(0.02)
            assert await long == 240
            busy = False
            await asyncio.gather(*clients)
            assert made[:3] == ["labels", "plain", "labels"]
        finally:
            await endpoint.house.stop()

    asyncio.run(asyncio.wait_for(go(), 60))


def test_who_gives_up_waiting_lets_the_busy_model_go_on() -> None:
    async def go() -> None:
        made: list[str] = []
        endpoint = endpoint_of(house(made, most=1, patience=0.05))
        await endpoint.house.start()
        try:
            async with endpoint.house.use(endpoint.house.find("labels")):  # type: ignore[arg-type]
                waiting = asyncio.create_task(ask(endpoint, ALL, "plain"))
                await asyncio.sleep(0.3)
                late = asyncio.create_task(ask(endpoint, ALL, "labels"))
                await asyncio.sleep(0.1)
                assert not late.done()  # `plain` comes first now
                waiting.cancel()
                assert await asyncio.wait_for(late, 60) in support.LABELS
            assert made == ["labels"]
        finally:
            await endpoint.house.stop()

    asyncio.run(go())


def test_a_key_sees_only_its_models() -> None:
    async def go() -> None:
        endpoint = endpoint_of(house([]))
        await endpoint.house.start()
        try:
            own = Grant(id="k2", name="dms", models=("my-plain",))
            assert endpoint.names(own) == ["plain"] and endpoint.names(ALL) == ["labels", "plain"]
            assert await ask(endpoint, own, "plain") and await ask(endpoint, own, "my-plain")
            with pytest.raises(Refused) as refused:
                await ask(endpoint, own, "labels")
            with pytest.raises(Refused) as unknown:
                await ask(endpoint, own, "nothing")
            assert refused.value.body() == unknown.value.body()
        finally:
            await endpoint.house.stop()

    asyncio.run(go())


def test_the_operators_words_stand_before_a_conversation() -> None:
    async def go() -> None:
        plain = endpoint_of(house([]))
        told = endpoint_of(house([], system="You answer for ward B."))
        for each in (plain, told):
            await each.house.start()
        try:
            counts = []
            for each in (plain, told):
                request = read_chat(
                    {"model": "plain", "messages": [{"role": "user", "content": "x"}]}, most_tokens=1
                )
                parts = [part async for part in each.reply(ALL, request)]
                counts.append(parts[-1].piece.prompt_tokens)
            assert counts[1] > counts[0] + 4
            own = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]}
            assert await ask(plain, ALL, "plain", **own) == await ask(told, ALL, "plain", **own)
            assert await ask(told, ALL, "labels") == await ask(plain, ALL, "labels")
        finally:
            for each in (plain, told):
                await each.house.stop()

    asyncio.run(go())


def test_a_model_that_does_not_load_says_so_and_the_rest_go_on(tmp_path: Path) -> None:
    async def go() -> None:
        whole = house([])
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(support.gguf(False).read_bytes()[:4096])
        engines = {
            "labels": lambda: InProcess(support.gguf(True), context=256, slots=1, threads=1),
            "plain": lambda: InProcess(broken, context=256, slots=1, threads=1),
        }
        endpoint = endpoint_of(House(whole.offers, engines, most=1))
        await endpoint.house.start()
        try:
            with pytest.raises(ApplianceError, match=r"broken|load"):
                await ask(endpoint, ALL, "plain")
            assert await ask(endpoint, ALL, "labels") in support.LABELS
        finally:
            await endpoint.house.stop()

    asyncio.run(go())


def test_an_endpoint_without_an_embedder_names_the_option() -> None:
    grant, asked = Grant(id="k1", name="tests"), EmbedAsk(model="vectors", texts=("abc",), packed=False)
    with pytest.raises(Refused, match="--embed NAME") as refused:
        asyncio.run(endpoint_of(House([], {})).embed(grant, asked))
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
