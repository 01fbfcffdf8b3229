"""Both engines asleep: nothing stays in memory, and the next request does not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import serve_support as support
from test_serve_engine import BOTH, running, text
from test_serve_reuse import LETTER, PUBLIC, ask

from appliance.core.errors import EngineFailed
from appliance.serve.engine import Engine, Settings
from appliance.serve.idle import Idle
from appliance.serve.inprocess import InProcess
from appliance.serve.llama_server import read_devices
from appliance.serve.native import Native


async def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


@BOTH
def test_an_engine_that_nobody_asks_gives_its_memory_back(tmp_path: Path, name: str) -> None:
    async def use(engine: Engine) -> None:
        whole = [*PUBLIC, *LETTER]
        await engine.warm(PUBLIC)
        before = await ask(engine, whole, "alice", len(PUBLIC))
        long = asyncio.create_task(text(engine, PUBLIC, Settings(**support.ENDLESS)))
        for _ in range(2):
            pid = engine.process.pid if isinstance(engine, Native) else None
            await until(lambda: bool(engine.facts()["asleep"]))
            assert long.done()
            assert await engine.health()
            if isinstance(engine, Native):
                assert pid is not None
                await until(lambda pid=pid: not psutil.pid_exists(pid))
                assert engine.facts()["rss_mb"] == 0
            else:
                assert isinstance(engine, InProcess)
                await until(lambda: engine._file is None)
            several = [ask(engine, whole, owner, len(PUBLIC)) for owner in ("alice", "bob", "carol")]
            for found in await asyncio.gather(*several):
                assert (found.text, found.cached_tokens) == (before.text, len(PUBLIC))
            assert not engine.facts()["asleep"]
        await until(lambda: bool(engine.facts()["asleep"]))
        assert await engine.tokenize("knee", False)
        assert engine.restarts == 0
        assert engine.facts()["prompt_tokens"] == 7 * len(whole) + len(PUBLIC)

    running(tmp_path, name, use, sleep_after=0.15)


def test_facts_say_what_runs(tmp_path: Path) -> None:
    async def use(engine: Engine) -> None:
        facts = engine.facts()
        assert facts.keys() == {
            *("engine", "gpu", "slots", "context", "threads", "adapters"),
            *("asleep", "rss_mb", "prompt_tokens", "cached_tokens"),
        }
        assert 10 < facts["rss_mb"] < (500 if engine.name == "native" else 4000)  # in-process: of the tests
        assert (facts["engine"], facts["slots"], facts["context"]) == (engine.name, 4, 512)

    for name in ("native", "in-process"):
        running(tmp_path / name, name, use)


def test_devices_are_what_the_build_lists() -> None:
    assert read_devices("Available devices:\n  (none)\n") == ()
    listed = ("  CUDA0: NVIDIA L4 (22491 MiB, 22182 MiB free)", "  BLAS: OpenBLAS (0 MiB, 0 MiB free)")
    assert read_devices("\n".join(["ggml_cuda_init: found 1", "Available devices:", *listed])) == (
        "CUDA0: NVIDIA L4",
    )


class Steps:
    """An engine for Idle that writes down what happens to it."""

    def __init__(self, after: float, *, broken: int = 0) -> None:
        self.said: list[str] = []
        self.idle = Idle(after, sleep=self.sleep, wake=self.wake)
        self._broken = broken

    async def sleep(self) -> None:
        self.said.append("sleep")
        await asyncio.sleep(0.02)

    async def wake(self) -> None:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.said.append("stopped in the middle")
            raise
        if self._broken:
            self._broken -= 1
            raise EngineFailed("no", "no")
        self.said.append("wake")

    async def use(self, seconds: float = 0.0) -> None:
        async with self.idle.awake():
            self.said.append("use")
            await asyncio.sleep(seconds)


def idle(steps: Steps, use: Callable[[], Awaitable[None]]) -> list[str]:
    async def go() -> None:
        steps.idle.begin()
        await use()
        await steps.idle.end()

    asyncio.run(go())
    return steps.said


def test_one_waking_serves_all_who_wait() -> None:
    steps = Steps(0.03)

    async def use() -> None:
        await until(lambda: steps.said == ["sleep"])  # still falling asleep
        first = asyncio.create_task(steps.use())
        others = [asyncio.create_task(steps.use()) for _ in range(3)]
        await asyncio.sleep(0.03)
        first.cancel()  # the one who woke it goes away
        await asyncio.gather(*others)

    assert idle(steps, use) == ["sleep", "wake", "use", "use", "use"]


def test_nothing_falls_asleep_in_the_middle() -> None:
    steps = Steps(0.02)

    async def use() -> None:
        await asyncio.gather(steps.use(0.1), steps.use(0.01))
        assert steps.said == ["use", "use"]
        async with steps.idle.awake():
            await steps.idle.now()  # as if the time had run out just before
            assert not steps.idle.asleep
        await until(lambda: steps.idle.asleep)

    assert idle(steps, use)[-1] == "sleep"


def test_a_waking_that_fails_is_tried_again_by_the_next() -> None:
    steps = Steps(0.02, broken=1)

    async def use() -> None:
        await until(lambda: steps.idle.asleep)
        with pytest.raises(EngineFailed):
            await steps.use()
        await steps.use()

    assert idle(steps, use)[:3] == ["sleep", "wake", "use"]
