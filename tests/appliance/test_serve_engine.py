"""Both engines, for real: the same tokens, the same odds, the same text; and what they survive."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest
import serve_support as support

from appliance.core.errors import ApplianceError, ConfigWrong, EngineFailed, NotFound
from appliance.models.llama import LlamaFile
from appliance.serve import engine as engines
from appliance.serve import labels, native, prompts
from appliance.serve.engine import Engine, Piece, Settings, Stops, native_binary, pick_engine
from appliance.serve.header import read_header

BOTH = pytest.mark.parametrize("name", ["native", "in-process"])


Result = TypeVar("Result")


def running(
    folder: Path, name: str, use: Callable[[Engine], Awaitable[Result]], *, slots: int = 4, **rest: object
) -> Result:
    async def go() -> Result:
        engine = pick_engine(name, support.gguf(), folder=folder, context=512, slots=slots, threads=1, **rest)
        assert engine.name == name
        try:
            await engine.start()
            return await use(engine)
        finally:
            await engine.stop()

    return asyncio.run(go())


async def text(
    engine: Engine, prompt: list[int], settings: Settings, *, owner: str = "tests", **rest: int | None
) -> tuple[str, Piece]:
    pieces = [piece async for piece in engine.generate(prompt, settings, owner=owner, **rest)]
    # How the text comes in pieces is up to the engine.
    return "".join(piece.text for piece in pieces), replace(pieces[-1], text="", tokens=1, cached_tokens=0)


@dataclass(frozen=True)
class Answers:
    """What an engine says to one message."""

    prompt: list[int]
    odds: list[float]
    label: labels.Labelled
    greedy: tuple[str, Piece]
    drawn: tuple[str, Piece]
    cut: tuple[str, Piece]


async def everything(engine: Engine) -> tuple[list[Answers], list[Answers]]:
    """The answers to eight messages, first one by one, then all at once on four slots."""
    header = read_header(support.gguf())
    trie = await labels.label_trie(engine, header, support.TASK)

    async def one(message: str) -> Answers:
        question = prompts.as_question(support.TASK, message)
        prompt = await prompts.chat_tokens(engine, header, [{"role": "user", "content": question}])
        return Answers(
            prompt=prompt,
            odds=await engine.choose(prompt, trie.allowed(()), owner="tests"),
            label=await labels.pick_label(engine, trie, prompt, owner="tests"),
            greedy=await text(engine, prompt, Settings(max_tokens=24)),
            drawn=await text(engine, prompt, Settings(max_tokens=24, temperature=0.8, top_p=0.9, seed=7)),
            cut=await text(engine, prompt, Settings(max_tokens=24, stop=("ca", "zzz"))),
        )

    alone = [await one(message) for message in support.TEXTS]
    return alone, list(await asyncio.gather(*map(one, support.TEXTS)))


def test_both_engines_say_what_llama_cpp_computes(tmp_path: Path) -> None:
    mine, mine_together = running(tmp_path / "a", "native", everything)
    theirs, theirs_together = running(tmp_path / "b", "in-process", everything)
    with LlamaFile(support.gguf(), context=512, sequences=1, threads=1) as file:
        first = sorted({file.tokenize(f" {label}", False)[0] for label in support.LABELS})
        for one, other, message in zip(mine, theirs, support.TEXTS, strict=True):
            rendered = f"<s><|user|> Message: {message}\nLabel?</s><|assistant|>"
            assert one.prompt == other.prompt == file.tokenize(rendered, True)
            logits = file.logits([one.prompt])[0][0][first].astype(float)
            exact = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            # Keys and values are kept in F16: what is computed together moves the last digits.
            np.testing.assert_allclose(one.odds, exact, atol=1e-2)
            np.testing.assert_allclose(other.odds, exact, atol=1e-2)
            assert one.label.label == other.label.label
            assert one.label.confidence == pytest.approx(other.label.confidence, abs=1e-3)
            assert (one.greedy, one.drawn, one.cut) == (other.greedy, other.drawn, other.cut)
            assert one.greedy[1].prompt_tokens == len(one.prompt)
    # What else is in a batch changes the rounding of F16 products: odds may move in the third digit,
    # and where two tokens are that close, so may a text.
    for together in (mine_together, theirs_together):
        for alone, one in zip(mine, together, strict=True):
            np.testing.assert_allclose(one.odds, alone.odds, atol=0.05)
            assert one.label.label == alone.label.label
        assert sum(one.greedy == alone.greedy for alone, one in zip(mine, together, strict=True)) >= 7


@BOTH
def test_an_answer_ends_at_its_limit(tmp_path: Path, name: str) -> None:
    async def use(engine: Engine) -> None:
        prompt = [1] * 500
        answer, last = await text(engine, prompt, Settings(max_tokens=100, temperature=1.5, seed=3))
        assert answer
        assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("length", 500, 12)

    running(tmp_path, name, use)


@BOTH
def test_an_abandoned_answer_frees_its_slot(tmp_path: Path, name: str) -> None:
    """Twenty long answers are begun and left on one slot; the next request does not wait for them."""

    async def use(engine: Engine) -> None:
        endless = Settings(**support.ENDLESS)
        prompt = await engine.tokenize("knee", False)
        start = time.monotonic()
        _, last = await text(engine, prompt, endless)
        assert last.completion_tokens == 400
        patience = 14 * (time.monotonic() - start)
        for _ in range(20):
            answer = engine.generate(prompt, endless, owner="tests")
            await anext(answer)
            await answer.aclose()
        waiting = asyncio.create_task(text(engine, prompt, endless))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(await asyncio.wait_for(engine.choose(prompt, [5, 6], owner="tests"), patience)) == 2
        assert time.monotonic() - start < patience

    running(tmp_path, name, use, slots=1)


def test_every_flag_of_ours_is_one_of_the_built_server() -> None:
    binary = native_binary()
    assert binary is not None
    usage = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", usage))
    argv = native.command(binary, Path("m.gguf"), Path("e.sock"), context=512, slots=4, threads=1)
    flags = [word for word in argv if word.startswith("--")]
    assert set(flags) <= known
    assert {"--offline", "--no-ui", "--no-slots", "--cache-ram", "--host"} <= set(flags)


def test_the_server_is_alone_on_a_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder too deep for a socket, with a socket left by a killed server, in a bad shell."""
    monkeypatch.setenv("LLAMA_ARG_HOST", "127.0.0.2")
    monkeypatch.setenv("LLAMA_ARG_ENDPOINT_METRICS", "1")
    for folder in (tmp_path / "e", tmp_path / ("x" * 120)):
        folder.mkdir()
        with socket.socket(socket.AF_UNIX) as left:
            if len(str(folder)) < 90:
                left.bind(str(folder / "engine.sock"))

        async def use(engine: Engine) -> None:
            assert isinstance(engine, native.Native)
            process = psutil.Process(engine.process.pid)
            argv, environment = process.cmdline(), process.environ()
            place = Path(argv[argv.index("--host") + 1])
            assert len(os.fsencode(place)) < 108
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
            assert process.net_connections("tcp") == []
            assert environment["LLAMA_API_KEY"] not in " ".join(argv)
            assert not any(name.startswith("LLAMA_ARG") for name in environment)
            assert len(await engine.choose([1, 4], [5, 6], owner="tests")) == 2

        running(folder, "native", use)


def test_a_killed_server_comes_back(tmp_path: Path) -> None:
    said: list[str] = []

    async def use(engine: Engine) -> None:
        assert isinstance(engine, native.Native)
        before = await engine.choose([1, 4, 300], [5, 6, 7], owner="tests")
        answer = engine.generate(
            await engine.tokenize("knee", False), Settings(**support.ENDLESS), owner="tests"
        )
        await anext(answer)
        os.kill(engine.process.pid or 0, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            async for _ in answer:
                pass
        assert await asyncio.wait_for(
            engine.choose([1, 4, 300], [5, 6, 7], owner="tests"), 10
        ) == pytest.approx(before, abs=1e-3)
        assert await engine.health()
        assert engine.restarts == 1

    running(tmp_path, "native", use, log=said.append)
    assert any("signal 9" in line for line in said)


@pytest.mark.parametrize("schema", [None, {"type": "object", "properties": {"a": {"type": "integer"}}}])
def test_a_request_with_a_schema_is_not_given_to_a_crashed_server_twice(
    tmp_path: Path, schema: dict[str, object] | None
) -> None:
    """The server dies with the request in its hands; one without a schema is simply made again."""

    async def use(engine: Engine) -> None:
        assert isinstance(engine, native.Native)
        prompt = await engine.tokenize("knee", False)
        pid, given = engine.process.pid or 0, engine.server.wire.open
        sent = []

        async def counted(path: str, body: dict[str, object]) -> object:
            sent.append(path)
            return await given(path, body)

        engine.server.wire.open = counted  # type: ignore[method-assign, assignment]
        os.kill(pid, signal.SIGSTOP)
        asking = asyncio.create_task(text(engine, prompt, Settings(max_tokens=3, schema=schema)))
        await asyncio.sleep(0.2)
        assert sent == ["/completion"] and not asking.done()
        os.kill(pid, signal.SIGKILL)
        if schema is None:
            assert (await asyncio.wait_for(asking, 15))[1].completion_tokens
            assert len(sent) == 2
        else:
            with pytest.raises(EngineFailed, match="in the middle"):
                await asyncio.wait_for(asking, 15)
            assert len(sent) == 1
        assert (await text(engine, prompt, Settings(max_tokens=3)))[1].completion_tokens  # others go on
        assert engine.restarts == 1

    running(tmp_path, "native", use, slots=1)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    damaged = tmp_path / "bad.gguf"
    damaged.write_bytes(support.gguf().read_bytes()[:300_000])

    async def start(**rest: object) -> None:
        facts = {"folder": tmp_path / "e", "context": 512, "slots": 1, "threads": 1, **rest}
        engine = pick_engine("native", facts.pop("path"), **facts)
        try:
            await engine.start()
        finally:
            await engine.stop()

    with pytest.raises(EngineFailed, match=r"exit code 1.*(load|read)"):
        asyncio.run(start(path=damaged))
    with pytest.raises(EngineFailed):
        asyncio.run(start(path=support.gguf(), memory=1 << 20))


def test_the_server_dies_with_us(tmp_path: Path) -> None:
    code = f"""
        import asyncio, sys
        from pathlib import Path
        from appliance.serve.engine import pick_engine

        async def go():
            engine = pick_engine("native", Path({str(support.gguf())!r}), folder=Path({str(tmp_path)!r}),
                                 context=512, slots=1, threads=1)
            await engine.start()
            print(engine.process.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(go())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    support.until(lambda: support.ended(child))


def test_the_engine_is_chosen_by_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"folder": tmp_path, "context": 512, "slots": 1}
    assert pick_engine("auto", support.gguf(), **facts).name == "native"
    monkeypatch.setattr(engines, "native_binary", lambda: None)
    assert pick_engine("auto", support.gguf(), **facts).name == "in-process"
    with pytest.raises(NotFound):
        pick_engine("native", support.gguf(), **facts)
    with pytest.raises(ConfigWrong):
        pick_engine("ollama", support.gguf(), **facts)


def test_requests_after_the_end_fail(tmp_path: Path) -> None:
    async def go() -> None:
        engine = pick_engine("in-process", support.gguf(), folder=tmp_path, context=512, slots=1, threads=1)
        await engine.start()
        answer = engine.generate([1, 4, 300], Settings(**support.ENDLESS), owner="tests")
        await anext(answer)
        await engine.stop()
        with pytest.raises(ApplianceError):
            async for _ in answer:
                pass
        with pytest.raises(ApplianceError):
            await engine.choose([1], [2, 3], owner="tests")

    asyncio.run(go())


@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_stops_cut_wherever_the_pieces_break(size: int) -> None:
    def cut(answer: str, *texts: str) -> str:
        stops, shown = Stops(texts), ""
        for at in range(0, len(answer), size):
            piece, ended = stops.feed(answer[at : at + size])
            shown += piece
            if ended:
                return shown
        return shown + stops.rest()

    assert cut("aaab tail", "aab") == "a"
    assert cut("one\n\ntwo", "\n\n") == "one"
    assert cut("one\n", "\n\n") == "one\n"
    assert cut("abcabd", "abd", "zz") == "abc"
    assert cut("plain") == "plain"
