"""Limits of keys on clocks of our own: exact at their borders, the same after a restart."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.core.db import reading, transaction
from appliance.core.home import Home, open_home
from appliance.models.registry import Model
from appliance.security import keys, usage
from appliance.security.keys import Grant
from appliance.serve import admission
from appliance.serve.admission import Admission, names_of
from appliance.serve.counts import Counts
from appliance.serve.endpoint import Endpoint
from appliance.serve.gateway import make_app
from appliance.serve.house import House
from appliance.serve.http import Failures
from appliance.serve.library import Library
from appliance.serve.requests import Refused
from appliance.serve.routes import Routes

SECOND = 1_000_000_000
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


class Clocks:
    """Both clocks of an Admission, moved by hand."""

    def __init__(self) -> None:
        self.ns, self.now = 5 * SECOND, NOON

    def admission(self, home: Home) -> Admission:
        return Admission(home, clock=lambda: self.ns, now=lambda: self.now)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def grant(**limits: int) -> Grant:
    return Grant(id="k", name="dms", **limits)


def refusal(work: Callable[[], AbstractContextManager[None]]) -> Refused:
    with pytest.raises(Refused) as caught, work():
        pass
    return caught.value


def ask(gate: Admission, key: Grant) -> bool:
    """Whether one request that ends at once is let in."""
    try:
        with gate.enter(key):
            return True
    except Refused as problem:
        assert problem.status == 429 and problem.kind == "rate_limit_error"
        return False


def test_a_rate_lets_in_a_minutes_worth_and_then_one_by_one(home: Home, clocks: Clocks) -> None:
    gate, key = clocks.admission(home), grant(requests_per_minute=4)
    assert [ask(gate, key) for _ in range(6)] == [True] * 4 + [False] * 2
    told = refusal(lambda: gate.enter(key))
    assert (told.status, told.code, told.retry_after) == (429, "rate_limit_exceeded", 15)
    clocks.ns += 15 * SECOND - 1
    assert not ask(gate, key) and refusal(lambda: gate.enter(key)).retry_after == 1
    clocks.ns += 1  # on the nanosecond
    assert [ask(gate, key) for _ in range(2)] == [True, False]
    clocks.ns += 3600 * SECOND
    assert [ask(gate, key) for _ in range(5)] == [True] * 4 + [False]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5000), st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=40))
def test_no_span_of_time_lets_in_more_than_the_rate(home: Home, rate: int, waits: list[int]) -> None:
    clocks, key = Clocks(), grant(requests_per_minute=rate)
    gate = clocks.admission(home)
    began, let_in = clocks.ns, 0
    for wait in waits:
        clocks.ns += wait
        let_in += sum(ask(gate, key) for _ in range(3))
        assert let_in <= rate + (clocks.ns - began) * rate // (60 * SECOND)
        if not ask(gate, key):  # whoever waits as long as told is let in
            clocks.ns += (refusal(lambda: gate.enter(key)).retry_after or 0) * SECOND
            assert ask(gate, key)
        let_in += 1


def test_keys_do_not_share_a_bucket(home: Home, clocks: Clocks) -> None:
    gate = clocks.admission(home)
    one, two = (Grant(id=name, name=name, requests_per_minute=1) for name in ("one", "two"))
    assert ask(gate, one) and not ask(gate, one) and ask(gate, two)


def test_open_requests_are_held_until_their_end(home: Home, clocks: Clocks) -> None:
    gate, key = clocks.admission(home), grant(open_requests=2, requests_per_minute=3)
    with ExitStack() as stack:
        stack.enter_context(gate.enter(key))
        with gate.enter(key):
            told = refusal(lambda: gate.enter(key))
            assert (told.status, told.code, told.retry_after) == (429, "too_many_open", 1)
        assert gate.held == 1
        with pytest.raises(ZeroDivisionError), gate.enter(key):
            1 / 0  # noqa: B018
        assert refusal(lambda: gate.enter(key)).code == "rate_limit_exceeded"  # the refused one cost nothing
    clocks.ns += 60 * SECOND
    assert ask(gate, key)


def test_tokens_of_a_day_are_used_up_and_come_back_at_midnight(home: Home, clocks: Clocks) -> None:
    gate, key = clocks.admission(home), grant(tokens_per_day=100)
    gate.spent(key, 60, 39)
    assert ask(gate, key)
    gate.spent(key, 0, 1)
    told = refusal(lambda: gate.enter(key))
    assert (told.status, told.code, told.retry_after) == (429, "daily_tokens_used", 12 * 3600)
    clocks.now = datetime(2030, 6, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    assert refusal(lambda: gate.enter(key)).retry_after == 1
    gate.save()
    assert not ask(gate, key)
    clocks.now = datetime(2030, 6, 2, tzinfo=UTC)
    assert ask(gate, key) and gate.used_today(key) == 0
    clocks.now -= timedelta(microseconds=1)  # a clock set back gives nothing back
    assert not ask(gate, key)


def test_without_limits_all_is_let_in_and_counted(home: Home, clocks: Clocks) -> None:
    gate, key = clocks.admission(home), grant()
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(gate.enter(key))
    gate.spent(key, 10**9, 5)
    assert ask(gate, key)
    gate.save()
    assert usage.by_key(home, NOON) == {
        "k": [usage.Day(day="2030-06-01", requests=501, prompt_tokens=10**9, completion_tokens=5)]
    }


def test_use_survives_a_restart_and_is_shared_by_endpoints(home: Home, clocks: Clocks) -> None:
    key = grant(tokens_per_day=100)
    one, two = clocks.admission(home), clocks.admission(home)
    one.spent(key, 30, 20)
    two.spent(key, 20, 29)
    assert one.used_today(key) == 50 and two.used_today(key) == 49
    one.save()
    two.save()
    one.save()  # nothing new, but it reads what the other added
    assert one.used_today(key) == two.used_today(key) == 99
    assert ask(one, key)
    two.spent(key, 1, 0)
    two.save()
    one.save()
    assert not ask(one, key) and not ask(clocks.admission(home), key)
    (day,) = usage.by_key(home, NOON)["k"]
    assert (day.requests, day.prompt_tokens, day.completion_tokens) == (1, 51, 49)


def test_use_that_cannot_be_saved_is_kept_and_still_counts(
    home: Home, clocks: Clocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate, key = clocks.admission(home), grant(tokens_per_day=10)

    async def serve() -> None:
        async with gate.saving(0.01):
            gate.spent(key, 4, 5)
            await until(lambda: "could not be saved" in caplog.text)
            gate.spent(key, 1, 0)
            assert gate.used_today(key) == 10 and not ask(gate, key)
            monkeypatch.undo()
            await until(lambda: bool(usage.by_key(home, NOON)))

    def full(home: Home) -> AbstractContextManager[None]:
        raise admission.ApplianceError("There is no space left.")

    monkeypatch.setattr(admission, "transaction", full)
    with caplog.at_level(logging.ERROR):
        asyncio.run(serve())
    (day,) = usage.by_key(home, NOON)["k"]
    assert (day.requests, day.prompt_tokens, day.completion_tokens) == (0, 5, 5)
    assert gate.used_today(key) == 10


def test_tokens_count_while_they_are_being_saved(
    home: Home, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, key = clocks.admission(home), grant(tokens_per_day=10)
    begun, go_on = threading.Event(), threading.Event()

    def slow(home: Home) -> AbstractContextManager[sqlite3.Connection]:
        begun.set()
        assert go_on.wait(60)
        return transaction(home)

    async def serve() -> None:
        async with gate.saving(0.005):
            gate.spent(key, 5, 4)
            await until(begun.is_set)
            assert gate.used_today(key) == 9 and ask(gate, key)
            gate.spent(key, 1, 0)
            assert gate.used_today(key) == 10 and not ask(gate, key)
            go_on.set()
        assert gate.used_today(key) == 10

    monkeypatch.setattr(admission, "transaction", slow)
    asyncio.run(serve())
    assert usage.by_key(home, NOON)["k"][0].tokens == 10


def test_many_clients_at_once_never_pass_a_limit(home: Home, clocks: Clocks) -> None:
    gate = clocks.admission(home)
    key = grant(open_requests=4, requests_per_minute=300, tokens_per_day=10**6)
    open_now = most = done = refused = 0

    async def client() -> None:
        nonlocal open_now, most, done, refused
        for _ in range(20):
            try:
                with gate.enter(key):
                    open_now += 1
                    most = max(most, open_now)
                    await asyncio.sleep(0)
                    gate.spent(key, 2, 1)
                    open_now -= 1
                    done += 1
            except Refused:
                refused += 1
            await asyncio.sleep(0)

    async def serve() -> None:
        async with gate.saving(0.005):
            await asyncio.gather(*(client() for _ in range(50)))

    asyncio.run(serve())
    assert most == 4 and done <= 300 and done + refused == 1000
    (day,) = usage.by_key(home, NOON)["k"]
    assert (day.requests, day.prompt_tokens, day.completion_tokens) == (done, 2 * done, done)
    assert gate.used_today(key) == 3 * done


def test_a_request_that_is_cancelled_gives_its_place_back(home: Home, clocks: Clocks) -> None:
    gate, key = clocks.admission(home), grant(open_requests=1)

    async def hold() -> None:
        with gate.enter(key):
            await asyncio.sleep(60)

    async def serve() -> None:
        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        assert not ask(gate, key)
        task.cancel()
        await asyncio.wait([task])
        assert ask(gate, key)

    asyncio.run(serve())


def test_one_save_is_one_transaction_for_all_keys_and_requests_make_none(
    home: Home, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(admission, "transaction", lambda home: made.append(home) or transaction(home))
    gate = clocks.admission(home)
    for number in range(50):
        key = Grant(id=f"k{number}", name="x", tokens_per_day=5, requests_per_minute=5)
        ask(gate, key)
        gate.spent(key, 1, 1)
    assert made == []
    gate.save()
    gate.save()
    assert len(made) == 1
    with reading(home) as link:
        assert link.execute("SELECT COUNT(*), SUM(prompt_tokens) FROM key_usage").fetchone()[:] == (50, 50)


def test_idle_keys_take_no_memory(home: Home, clocks: Clocks) -> None:
    gate = clocks.admission(home)
    waiting = Grant(id="open", name="x", open_requests=1)
    with gate.enter(waiting):
        for number in range(1000):
            assert ask(gate, Grant(id=f"k{number}", name="x", requests_per_minute=2))
        clocks.ns += 30 * SECOND - 1
        gate.save()
        assert gate.held == 1001
        clocks.ns += 1
        gate.save()
        assert gate.held == 1 and not ask(gate, waiting)
    clocks.now += timedelta(days=2)
    gate.save()
    assert gate.held == 0 and gate._sums == {} and gate._unsaved == {}


def test_a_file_goes_by_the_name_of_its_adapter_and_an_adapter_not_by_its_base() -> None:
    rest = {"path": Path("x"), "sha256": "", "size": 1}
    assert names_of(Model(name="f", kind="gguf", parent="lora-0007", **rest)) == ("f", "lora-0007")
    assert names_of(Model(name="f", kind="gguf", **rest)) == ("f",)
    assert names_of(Model(name="lora-0007", kind="adapter", parent="base", **rest)) == ("lora-0007",)


def test_an_expired_key_gets_401_and_a_refusal_says_when_to_come_again(home: Home) -> None:
    end = keys.utc_now() + timedelta(days=1)
    _, secret = keys.new_key(home, "dms", "mira", expires=end)
    clock = [end - timedelta(seconds=1)]
    ring = keys.KeyRing(home, clock=lambda: clock[0])
    endpoint = Endpoint(
        house=House([], {}),
        admission=Admission(home),
        library=Library(home=home),
        routes=Routes(home),
        counts=Counts(home),
    )

    def busy(secret: str) -> Grant:
        raise Refused("Later.", status=429, code="rate_limit_exceeded", retry_after=7)

    async def get(check: Callable[[str], Grant | None]) -> httpx.Response:
        app = make_app(endpoint, check, Failures(), dict)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"})

    assert asyncio.run(get(ring.check)).status_code == 200
    clock[0] = end
    told = asyncio.run(get(ring.check))
    assert (told.status_code, told.json()["error"]["code"]) == (401, "invalid_api_key")
    ring.close()
    told = asyncio.run(get(busy))
    assert (told.status_code, told.headers["retry-after"]) == (429, "7")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)
