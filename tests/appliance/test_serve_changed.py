"""A model file that is changed while it is served: refused when an engine would read it again."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mmap
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import serve_support as support
from test_serve_engine import BOTH

from appliance.core.errors import EngineFailed, ModelChanged
from appliance.core.files import sha256_file
from appliance.core.home import open_home
from appliance.models.registry import Model
from appliance.serve import checked
from appliance.serve.checked import CheckedFile, loading
from appliance.serve.embedding import pick_embedder
from appliance.serve.engine import Engine, pick_engine
from appliance.serve.native import Native

EITHER = pytest.mark.parametrize("name", ["native", "in-process"])


def copied(folder: Path, *, labels: bool = True) -> Model:
    path = folder / f"{labels}.gguf"
    shutil.copy(support.gguf(labels), path)
    return Model(name="inbox", kind="gguf", path=path, sha256=sha256_file(path), size=path.stat().st_size)


def spoil(path: Path) -> None:
    """Other weights in the same inode; still a file that llama.cpp loads."""
    with path.open("r+b") as stream:
        stream.seek(-64, os.SEEK_END)
        stream.write(b"\x11" * 32)


async def awhile(true: Any) -> None:
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in time")


def opened(name: str, file: CheckedFile, folder: Path, **rest: Any) -> Engine:
    facts: dict[str, Any] = {"context": 256, "slots": 1, "threads": 1} | rest
    return pick_engine(name, file.path, folder=folder, loading=loading([file]), **facts)


@BOTH
def test_it_does_not_wake_from_a_changed_file(tmp_path: Path, name: str) -> None:
    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        engine = opened(name, file, tmp_path / "e", sleep_after=0.1)
        await engine.start()
        try:
            before = await engine.choose([1, 4], [5, 6], owner="k")
            await awhile(lambda: engine.facts()["asleep"])
            assert await engine.choose([1, 4], [5, 6], owner="k") == before
            await awhile(lambda: engine.facts()["asleep"])
            spoil(model.path)
            for _ in range(2):
                with pytest.raises(ModelChanged, match="SHA-256 differs"):
                    await engine.choose([1, 4], [5, 6], owner="k")
            shutil.copyfile(support.gguf(), model.path)  # the same inode, whole again
            assert await engine.choose([1, 4], [5, 6], owner="k") == before
        finally:
            await engine.stop()
            file.close()

    asyncio.run(go())


@EITHER
def test_nor_does_an_embedder(tmp_path: Path, name: str) -> None:
    async def go() -> None:
        model = copied(tmp_path, labels=False)
        file = CheckedFile(model)
        embedder = pick_embedder(
            name, file.path, folder=tmp_path / "e", threads=1, loading=loading([file]), sleep_after=0.1
        )
        await embedder.start()
        try:
            await embedder.embed(["knee"])
            await awhile(lambda: embedder.facts()["asleep"])
            spoil(model.path)
            with pytest.raises(ModelChanged):
                await embedder.embed(["knee"])
        finally:
            await embedder.stop()
            file.close()

    asyncio.run(go())


def test_a_crashed_engine_is_not_started_from_a_changed_file(tmp_path: Path) -> None:
    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        engine = opened("native", file, tmp_path / "e")
        assert isinstance(engine, Native)
        await engine.start()
        try:
            spoil(model.path)
            pid = engine.process.pid or 0
            os.kill(pid, signal.SIGKILL)
            await awhile(lambda: engine.restarts)
            with pytest.raises(ModelChanged):
                await engine.choose([1, 4], [5, 6], owner="k")
            assert engine.process.pid is None and not await engine.health()
            shutil.copyfile(support.gguf(), model.path)
            await awhile(engine.server.healthy)  # the supervisor has gone on trying
            assert len(await engine.choose([1, 4], [5, 6], owner="k")) == 2
        finally:
            await engine.stop()
            file.close()

    asyncio.run(go())


@EITHER
def test_a_write_during_the_load_is_seen(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the hash and the load, where no lease can be had: what was hashed is not what was read."""
    monkeypatch.setattr(CheckedFile, "lease", lambda file: None)

    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        hashed = file.check

        def spoiling() -> Any:
            mark = hashed()
            spoil(model.path)
            return mark

        file.check = spoiling  # type: ignore[method-assign]
        engine = opened(name, file, tmp_path / "e")
        with pytest.raises(ModelChanged):
            await engine.start()
        assert not await engine.health()
        if isinstance(engine, Native):
            assert engine.process.pid is None
        await engine.stop()
        file.close()

    asyncio.run(go())


@EITHER
def test_nobody_writes_during_the_load(tmp_path: Path, name: str) -> None:
    """Whoever opens the file for writing waits; that it was tried is seen."""

    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        hashed = file.check

        def spoiling() -> Any:
            mark = hashed()
            with pytest.raises(BlockingIOError):
                os.open(model.path, os.O_WRONLY | os.O_NONBLOCK)
            return mark

        file.check = spoiling  # type: ignore[method-assign]
        engine = opened(name, file, tmp_path / "e")
        with pytest.raises(ModelChanged):
            await engine.start()
        file.check = hashed  # type: ignore[method-assign]
        await engine.start()  # nothing had been written
        os.close(os.open(model.path, os.O_WRONLY | os.O_NONBLOCK))  # and nobody waits now
        await engine.stop()
        file.close()

    asyncio.run(go())


@EITHER
def test_nothing_is_loaded_that_a_mapping_could_change(tmp_path: Path, name: str) -> None:
    """The times say nothing of a page that is written again: it was hashed, then changed, then loaded."""

    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        with model.path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
            content[-1:] = content[-1:]
            with pytest.raises(EngineFailed, match="open for writing"):
                CheckedFile(model)
            hashed = file.check

            def spoiling() -> Any:
                mark = hashed()
                content[-64:-32] = b"\x11" * 32
                file.unchanged(mark)  # as said
                return mark

            file.check = spoiling  # type: ignore[method-assign]
            engine = opened(name, file, tmp_path / "e")
            with pytest.raises(EngineFailed, match="open for writing"):
                await engine.start()
            assert not await engine.health()
            await engine.stop()
        file.close()

    asyncio.run(go())


def test_a_crashed_engine_comes_back_when_the_file_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        file = CheckedFile(copied(tmp_path))
        engine = opened("native", file, tmp_path / "e")
        assert isinstance(engine, Native)
        await engine.start()
        try:
            with monkeypatch.context() as broken:
                broken.setattr(hashlib, "file_digest", unreadable)
                os.kill(engine.process.pid or 0, signal.SIGKILL)
                await awhile(lambda: engine.restarts > 1)
                with pytest.raises(EngineFailed, match="cannot be read: Too many open files"):
                    await engine.choose([1, 4], [5, 6], owner="k")
            await awhile(engine.server.healthy)
            assert len(await engine.choose([1, 4], [5, 6], owner="k")) == 2
        finally:
            await engine.stop()
            file.close()

    asyncio.run(go())


def unreadable(*what: Any) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_file_put_in_its_place_is_not_what_is_read(tmp_path: Path) -> None:
    async def go() -> None:
        model = copied(tmp_path)
        file = CheckedFile(model)
        engine = opened("native", file, tmp_path / "e")
        await engine.start()
        before = await engine.choose([1, 4], [5, 6], owner="k")
        await engine.stop()
        (tmp_path / "other").write_bytes(b"GGUF, but not this one")
        (tmp_path / "other").replace(model.path)
        again = opened("native", file, tmp_path / "f")
        await again.start()
        assert await again.choose([1, 4], [5, 6], owner="k") == before
        await again.stop()
        file.close()

    asyncio.run(go())


def test_hashing_is_done_beside_the_loop_and_only_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, threads = copied(tmp_path), []

    def digest(*what: Any) -> Any:
        threads.append(threading.current_thread())
        return hashlib.file_digest(*what)

    class Library:
        file_digest = staticmethod(digest)

    monkeypatch.setattr(checked, "hashlib", Library)
    file = CheckedFile(model)

    async def go() -> None:
        for _ in range(2):
            async with loading([file])():
                pass

    asyncio.run(go())
    assert len(threads) == 3 and all(one is not threading.main_thread() for one in threads[1:])
    spoil(model.path)
    for _ in range(3):  # whoever asks for a refused model must not keep the disk busy
        with pytest.raises(ModelChanged):
            file.check()
    assert len(threads) == 4
    file.close()


def test_the_client_is_told_and_other_models_go_on(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    for name, labels in ((support.NAME, True), ("plain", False)):
        path = home.models / f"{name}.gguf"
        shutil.copy(support.gguf(labels), path)
        support.add_model(home, name, path)
    spec: dict[str, Any] = {"models": ["plain", support.NAME], "most_loaded": 1, "threads": 1, "cache": "off"}
    with support.endpoint(home, **spec) as (job, url, key):

        def ask(model: str) -> httpx.Response:
            body = {"model": model, "messages": [{"role": "user", "content": model}], "max_tokens": 2}
            head = {"Authorization": f"Bearer {key}"}
            return httpx.post(f"{url}/v1/chat/completions", json=body, headers=head, timeout=30)

        assert ask(support.NAME).status_code == 200  # `plain` has left memory for it
        spoil(home.models / "plain.gguf")
        refused = ask("plain")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["type"]) == (503, "model_changed", "server_error")
        assert "SHA-256" in error["message"] and "imported it again" in error["message"]
        assert str(home.path) not in error["message"]
        assert ask(support.NAME).status_code == 200
        _, server = support.processes(job)
        assert ask("plain").status_code == 503
        assert server.is_running()  # what is refused takes nobody's place
        shutil.copyfile(support.gguf(False), home.models / "plain.gguf")
        assert ask("plain").status_code == 200


def test_what_is_read_of_a_file_is_of_the_registered_bytes(tmp_path: Path) -> None:
    """Whoever swaps the template while the header is read, and swaps it back, is found out."""
    model = copied(tmp_path)
    whole = model.path.read_bytes()

    def swapped(path: Path) -> None:
        handle = os.open(model.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.pwrite(handle, b"X", len(whole) // 2)
            os.pwrite(handle, whole, 0)
        finally:
            os.close(handle)

    with pytest.raises((ModelChanged, BlockingIOError)):
        CheckedFile(model, swapped)
    assert model.path.read_bytes() == whole
    CheckedFile(model).close()
