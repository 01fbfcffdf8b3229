"""Work in a thread is waited for: no model is freed under it, or left behind when who wanted it goes away."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import serve_support as support

from appliance.models.llama import LlamaFile
from appliance.serve import embedding_inprocess, inprocess
from appliance.serve.embedding import pick_embedder
from appliance.serve.engine import pick_engine
from appliance.serve.threads import in_thread


def test_who_is_stopped_waits_for_the_thread() -> None:
    going, done = threading.Event(), threading.Event()

    def work() -> None:
        going.wait(60)
        done.set()

    async def go() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.sleep(0.02)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        going.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()

    asyncio.run(go())


def test_it_gives_what_comes_of_it() -> None:
    assert asyncio.run(in_thread(max, 1, 2)) == 2
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(in_thread(int, "x"))


@pytest.mark.parametrize("kind", ["text", "vectors"])
def test_a_load_that_nobody_wants_any_more_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    began, going, files = threading.Event(), threading.Event(), []

    def slow(*given: Any, **named: Any) -> LlamaFile:
        began.set()
        going.wait(60)
        files.append(LlamaFile(*given, **named))
        return files[-1]

    for place in (inprocess, embedding_inprocess):
        monkeypatch.setattr(place, "LlamaFile", slow)

    async def go() -> None:
        engine: Any = (
            pick_engine("in-process", support.gguf(), folder=tmp_path, context=64, slots=1, threads=1)
            if kind == "text"
            else pick_embedder("in-process", support.embedding_gguf(), folder=tmp_path, threads=1)
        )
        start = asyncio.create_task(engine.start())
        await asyncio.to_thread(began.wait, 10)
        start.cancel()
        going.set()
        with pytest.raises(asyncio.CancelledError):
            await start
        await engine.stop()

    asyncio.run(go())
    assert [file.model for file in files] == [None]


def test_the_embedder_is_not_ended_under_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown cancels what is open, and then stops the engines."""
    began, going, freed = threading.Event(), threading.Event(), []
    run = LlamaFile.run

    def slow(file: LlamaFile, *given: Any) -> None:
        began.set()
        going.wait(60)
        freed.append(file.model is None)
        run(file, *given)

    async def go() -> None:
        embedder = pick_embedder("in-process", support.embedding_gguf(), folder=tmp_path, threads=1)
        await embedder.start()
        monkeypatch.setattr(LlamaFile, "run", slow)
        work = asyncio.create_task(embedder.embed(["knee"]))
        await asyncio.to_thread(began.wait, 10)
        work.cancel()
        stop = asyncio.create_task(embedder.stop())
        await asyncio.sleep(0.05)
        going.set()
        await asyncio.wait([work, stop])

    asyncio.run(go())
    assert freed == [False]


def test_a_long_text_is_tokenised_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    tokenize = LlamaFile.tokenize

    def seen(*given: Any, **named: Any) -> list[int]:
        threads.append(threading.current_thread() is threading.main_thread())
        return tokenize(*given, **named)

    monkeypatch.setattr(LlamaFile, "tokenize", seen)

    async def go() -> None:
        engine = pick_engine("in-process", support.gguf(), folder=tmp_path, context=64, slots=1, threads=1)
        await engine.start()
        short, long = [await engine.tokenize("knee " * times, False) for times in (1, 10_000)]
        assert len(long) > 9_000 and long[:3] == short[:3]
        await engine.stop()

    asyncio.run(go())
    assert threads == [True, False]
