"""The request log: written before an answer, in groups, without a word of it; when it fails, no answer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import serve_support as support
from test_serve_house import ask, endpoint_of
from test_serve_house import house as make_house

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, Busy, LogDamaged, NoRoom
from appliance.core.home import Home
from appliance.ops import jobs
from appliance.security import audit
from appliance.security.keys import Grant
from appliance.security.log import request_rows, requests, verify
from appliance.security.log.requests import RequestLog
from appliance.serve import client
from appliance.serve.embeddings import EmbedAsk
from appliance.serve.endpoint import Endpoint
from appliance.serve.gateway import make_app
from appliance.serve.house import House
from appliance.serve.http import Failures

PROMPT = [{"role": "user", "content": "Is Zebedee Quux still on warfarin?"}]


def rows(home: Home) -> list[dict[str, Any]]:
    with reading(home) as link:
        return [dict(row) for row in link.execute("SELECT * FROM request_log ORDER BY id")]


def entries(home: Home) -> list[dict[str, Any]]:
    with reading(home) as link:
        return audit.tail(link, 1000)


async def one(log: RequestLog, prompt: Any = PROMPT) -> None:
    request, written = log.asked("k1", "inbox", prompt, route="trial")
    await written
    log.answered(request, "k1", "inbox-large", route="trial", read=9, written=4)


def test_who_asked_what_of_which_model(home: Home) -> None:
    with closing(RequestLog(home, who="endpoint 0007")) as log:
        asyncio.run(one(log))
    asked, answered = rows(home)
    told = ("request", "kind", "key", "model", "route", "prompt_tokens", "completion_tokens")
    assert [asked[name] for name in told[1:]] == ["asked", "k1", "inbox", "trial", 0, 0]
    assert [answered[name] for name in told[1:]] == ["answered", "k1", "inbox-large", "trial", 9, 4]
    assert asked["request"] == answered["request"] and len(asked["prompt"]) == 64 and not answered["prompt"]
    assert [entry["who"] for entry in entries(home)] == ["endpoint 0007"] * len(entries(home))
    assert verify.verify(home, []).ok
    (found,) = request_rows.find_prompt(home, PROMPT)
    assert (found["request"], found["key"]) == (asked["request"], "k1")
    assert request_rows.find_prompt(home, "another") == []
    for file in home.path.rglob("*"):
        if file.is_file():
            assert b"Zebedee" not in file.read_bytes() and b"warfarin" not in file.read_bytes(), file


def test_it_is_on_the_disk_when_the_wait_is_over(home: Home) -> None:
    async def go(log: RequestLog) -> int:
        _, written = log.asked("k1", "inbox", PROMPT)
        assert not written.done()
        await written
        return len(rows(home))

    with closing(RequestLog(home)) as log:
        assert asyncio.run(go(log)) == 1


def test_many_share_a_group(home: Home) -> None:
    async def go(log: RequestLog) -> None:
        await asyncio.gather(*(one(log) for _ in range(500)))

    with closing(RequestLog(home)) as log:
        asyncio.run(go(log))
    groups = entries(home)
    assert sum(entry["count"] for entry in groups) == len(rows(home)) == 1000
    assert len(groups) <= 30, "groups of a few rows make the tree large"
    assert verify.verify(home, []).ok


def test_a_day_has_its_key_and_then_has_not(home: Home) -> None:
    clock = [datetime(2026, 11, 25, 23, 59, tzinfo=UTC)]
    with closing(RequestLog(home, clock=lambda: clock[0].timestamp())) as log:
        asyncio.run(one(log))
        asyncio.run(one(log))
        clock[0] += timedelta(minutes=2)
        asyncio.run(one(log))
        asked = [row["prompt"] for row in rows(home) if row["kind"] == "asked"]
        assert asked[0] == asked[1] != asked[2], "the same prompt of another day cannot be linked"
        assert len(request_rows.find_prompt(home, PROMPT)) == 3
        clock[0] += timedelta(days=request_rows.KEY_DAYS)
        asyncio.run(one(log))
    assert len(request_rows.find_prompt(home, PROMPT)) == 2
    (forgotten,) = [entry for entry in entries(home) if entry["what"] == "requests.forget"]
    assert forgotten["days"] == 1
    assert verify.verify(home, []).ok, "rows are proven without the key"


def refuse(problem: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise problem

    return fail


def test_a_full_disk_refuses_and_recovers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RequestLog(home)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(requests, "writing", refuse(NoRoom("Full.")))
            with pytest.raises(NoRoom):
                asyncio.run(one(log))
        asyncio.run(one(log))
    assert len(rows(home)) == 2


def test_what_became_of_a_request_is_written_when_there_is_room_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "AGAIN_SECONDS", 0.02)
    with closing(RequestLog(home)) as log:

        async def go() -> None:
            request, written = log.asked("k1", "inbox", PROMPT)
            await written
            refused = refuse(NoRoom("Full."))
            tried: list[None] = []

            def full(*given: Any) -> Any:
                tried.append(None)
                return refused(*given)

            with monkeypatch.context() as patch:
                patch.setattr(requests, "writing", full)
                log.answered(request, "k1", "inbox", route="", read=9, written=4)
                while len(tried) < 2:
                    await asyncio.sleep(0.01)
            while len(rows(home)) < 2:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(go(), 60))
    assert [row["kind"] for row in rows(home)] == ["asked", "answered"]
    assert verify.verify(home, []).ok


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    with closing(sqlite3.connect(home.database, isolation_level=None)) as link:
        link.execute("BEGIN IMMEDIATE")
        yield


def counted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows with each try to write a group."""
    tries: list[None] = []
    writing = requests.writing

    def try_it(*given: Any) -> Any:
        tries.append(None)
        return writing(*given)

    monkeypatch.setattr(requests, "writing", try_it)
    return tries


def test_who_comes_behind_a_group_that_waits_for_the_database_waits_no_longer_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that nobody waits for is put back after one short go, not after SQLite's 30 seconds."""
    monkeypatch.setattr(requests, "TRY_SECONDS", 0.05)
    monkeypatch.setattr(requests, "PATIENCE_SECONDS", 0.5)
    tries = counted(monkeypatch)
    with closing(RequestLog(home)) as log:

        async def go() -> None:
            await one(log)
            while len(rows(home)) < 2:
                await asyncio.sleep(0.01)
            with held(home):
                before = len(tries)
                log.answered("r", "k1", "inbox", route="", read=9, written=4)
                while len(tries) == before:
                    await asyncio.sleep(0.01)
                with pytest.raises(Busy):
                    await one(log)
                assert len(tries) > before + 2, "it was tried until its time was over"
            await one(log)

        asyncio.run(asyncio.wait_for(go(), 60))
    assert sorted(row["kind"] for row in rows(home)) == ["answered"] * 3 + ["asked"] * 2


def test_what_is_left_at_the_end_waits_for_the_database(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TRY_SECONDS", 0.05)
    tries = counted(monkeypatch)
    log = RequestLog(home)
    asyncio.run(one(log))
    closer = threading.Thread(target=log.close)
    with held(home):
        log.answered("r", "k1", "inbox", route="", read=9, written=4)
        closer.start()
        before = len(tries)
        while closer.is_alive() and len(tries) < before + 4:
            time.sleep(0.01)
    closer.join(20)
    assert [row["kind"] for row in rows(home)].count("answered") == 2


@pytest.mark.parametrize("problem", [ApplianceError("I/O error."), sqlite3.DatabaseError("x"), ValueError()])
def test_after_any_other_error_it_takes_nothing_more(
    home: Home, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(RequestLog(home)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(requests, "writing", refuse(problem))
            with pytest.raises(ApplianceError):
                asyncio.run(one(log))
        with pytest.raises(ApplianceError):
            asyncio.run(one(log))
    assert rows(home) == []
    with pytest.raises(ApplianceError):
        asyncio.run(one(log))  # closed


def test_a_damaged_log_stops_it(home: Home) -> None:
    with transaction(home) as link:
        link.execute("DELETE FROM audit_head")
    with closing(RequestLog(home)) as log, pytest.raises(ApplianceError, match="damaged"):
        asyncio.run(one(log))
    assert rows(home) == []


def in_house(log: RequestLog | None) -> list[str]:
    """A label model and a plain one, asked once each."""

    async def go() -> list[str]:
        here: Endpoint = endpoint_of(make_house([]))
        here.log = log
        await here.house.start()
        try:
            grant = Grant(id="k1", name="tests")
            return [await ask(here, grant, name) for name in ("labels", "my-plain")]
        finally:
            await here.house.stop()

    return asyncio.run(go())


def test_an_endpoint_that_cannot_log_does_not_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RequestLog(home)) as log:
        assert len(in_house(log)) == 2
    found = rows(home)
    assert [(row["kind"], row["model"]) for row in found if row["kind"] == "asked"] == [
        ("asked", "labels"),
        ("asked", "plain"),
    ]
    answered = [row for row in found if row["kind"] == "answered"]
    assert all(row["prompt_tokens"] > 0 and row["completion_tokens"] > 0 for row in answered)
    monkeypatch.setattr(requests, "writing", refuse(NoRoom("Full.")))
    with closing(RequestLog(home)) as log, pytest.raises(NoRoom):
        in_house(log)
    assert len(in_house(None)) == 2, "it was the log that kept the answers back"


class Vectors:
    """Stands for an embedding model."""

    context = 99

    async def tokenize(self, text: str) -> list[int]:
        return [1] * len(text)

    async def embed(self, tokens: list[list[int]]) -> list[list[float]]:
        return [[0.0] for _ in tokens]


class Passages:
    """Stands for a collection of documents."""

    def open(self, grant: Grant, address: str) -> dict[str, Any]:
        return {"text": "Zebedee"}


def test_vectors_and_passages_are_logged_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = Grant(id="k1", name="tests")

    async def go(log: RequestLog) -> int:
        here = endpoint_of(House([], {}))
        here.log, here.embedder_name = log, "vectors"
        here.embedder, here.library = Vectors(), Passages()  # type: ignore[assignment]
        with suppress(NoRoom):
            assert (await here.embed(grant, EmbedAsk(model="vectors", texts=("abc",), packed=False)))[1] == 3
        app = make_app(here, lambda secret: grant, Failures(), dict)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as web:
            said = await web.get("/v1/passages?address=x", headers={"Authorization": "Bearer x"})
        return said.status_code

    with closing(RequestLog(home)) as log:
        assert asyncio.run(go(log)) == 200
    told = [(row["kind"], row["model"], row["prompt_tokens"]) for row in rows(home)]
    assert sorted(told) == [
        ("answered", "documents", 0),
        ("answered", "vectors", 3),
        ("asked", "documents", 0),
        ("asked", "vectors", 0),
    ]
    assert len(request_rows.find_prompt(home, ["abc"])) == len(request_rows.find_prompt(home, "x")) == 1
    monkeypatch.setattr(requests, "writing", refuse(NoRoom("Full.")))
    with closing(RequestLog(home)) as log:
        assert asyncio.run(go(log)) == 503


def test_the_name_of_no_model_never_reaches_the_disk(home: Home) -> None:
    async def go(log: RequestLog) -> None:
        here = endpoint_of(make_house([]))
        here.log = log
        with pytest.raises(Exception, match="no such model"):
            await ask(here, Grant(id="k1", name="tests"), "Zebedee Quux")

    with closing(RequestLog(home)) as log:
        asyncio.run(go(log))
    assert rows(home) == []


def test_a_served_answer_is_in_the_log_and_a_damaged_log_ends_answers(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home", labels=False)
    with support.endpoint(home, threads=1) as (job, url, key):
        assert client.ask(url, key, support.NAME, PROMPT, max_tokens=4).finish in ("stop", "length")
        support.until(lambda: len(rows(home)) == 2)
        assert request_rows.find_prompt(home, PROMPT)[0]["model"] == support.NAME
        logged = [entry for entry in entries(home) if entry["what"] == "requests"]
        assert {entry["who"] for entry in logged} == {f"endpoint {job.id}"}
        with transaction(home) as link:
            link.execute("DELETE FROM audit_head")
        body = {"model": support.NAME, "messages": PROMPT, "max_tokens": 4}
        said = httpx.post(f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
        assert said.status_code == 503 and "damaged" not in said.text
        health = httpx.get(f"{url}/health")
        assert (health.status_code, health.json()) == (503, {"status": "log stopped"})
        with pytest.raises(LogDamaged):
            jobs.stop(home, job.id, who="tests")
        support.until(lambda: jobs.view(home, job.id).state != "running")
    assert len(rows(home)) == 2
    for file in home.jobs.rglob("*"):
        assert not file.is_file() or b"Zebedee" not in file.read_bytes()
