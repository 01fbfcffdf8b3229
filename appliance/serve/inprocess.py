"""The engine where there is no llama-server: llama.cpp in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import psutil

from appliance.core.errors import ApplianceError, EngineFailed
from appliance.models.llama import LlamaFile, library
from appliance.serve.batching import Batch, Request
from appliance.serve.checked import Loading, unchecked
from appliance.serve.engine import Piece, Settings, check_request
from appliance.serve.idle import Idle
from appliance.serve.threads import in_thread

_LONGEST_PREFIX = 1024  # tokens of a public prefix that is kept
_LONG = 20_000  # characters: from here on the loop does not wait for its tokens; a million take a second


class InProcess:
    """The GGUF file `model`; one thread owns the context, requests reach it through a queue.

    One public prefix of at most 1,024 tokens is kept for the base and one for each adapter.
    """

    name = "in-process"
    restarts = 0

    def __init__(
        self,
        model: Path,
        *,
        context: int,
        slots: int,
        threads: int,
        adapters: Sequence[Path] = (),
        loading: Loading = unchecked,
        sleep_after: float | None = None,
    ) -> None:
        self.context, self.slots = context, slots
        self._model, self._threads, self._adapters = model, threads, tuple(adapters)
        self._loading = loading
        self._file: LlamaFile | None = None
        self._batch: Batch | None = None
        self._new: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._prefixes: dict[tuple[int | None, tuple[int, ...]], None] = {}
        self._before = (0, 0)  # prompt and cached tokens of earlier batches
        self._idle = Idle(sleep_after, sleep=self._unload, wake=self._load)

    async def start(self) -> None:
        """See Engine."""
        await self._load()
        self._idle.begin()

    async def health(self) -> bool:
        """See Engine."""
        return self._idle.asleep or (self._thread is not None and self._thread.is_alive())

    async def stop(self) -> None:
        """See Engine."""
        await self._idle.end()
        await self._unload()

    def facts(self) -> dict[str, Any]:
        """See Engine."""
        prompt, cached = self._counts()
        return {
            "engine": self.name,
            "gpu": "offloaded" if library().llama_supports_gpu_offload() else "",
            "slots": self.slots,
            "context": self.context,
            "threads": self._threads,
            "adapters": len(self._adapters),
            "asleep": self._idle.asleep,
            "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
            "prompt_tokens": prompt,
            "cached_tokens": cached,
        }

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See Engine."""
        async with self._idle.awake():
            if self._file is None:
                raise _ended()
            if len(text) < _LONG:
                return self._file.tokenize(text, special, reworded=True)
            return await in_thread(self._file.tokenize, text, special, reworded=True)

    async def warm(self, prefix: Sequence[int], adapter: int | None = None) -> None:
        """See Engine."""
        if not prefix:
            return
        async with self._idle.awake():
            request, said = self._ask(prefix, shared=len(prefix), adapter=adapter)
            try:
                _checked(await said.get())
            finally:
                request.over = True
        self._prefixes[adapter, tuple(prefix)] = None

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
        async with self._idle.awake():
            request, said = self._ask(prompt, allowed=allowed, owner=owner, shared=shared, adapter=adapter)
            try:
                odds: list[float] = _checked(await said.get())
                return odds
            finally:
                request.over = True

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
        async with self._idle.awake():
            request, said = self._ask(prompt, settings=settings, owner=owner, shared=shared, adapter=adapter)
            try:
                while True:
                    piece: Piece = _checked(await said.get())
                    yield piece
                    if piece.finish:
                        return
            finally:
                request.over = True

    def _ask(self, prompt: Sequence[int], **facts: Any) -> tuple[Request, asyncio.Queue[Any]]:
        """Hand a request to the thread; what it says arrives in the queue."""
        if self._thread is None or not self._thread.is_alive():
            raise _ended()
        check_request(prompt, self.context, facts["adapter"], len(self._adapters))
        said: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(item: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended in the meantime
                loop.call_soon_threadsafe(said.put_nowait, item)

        request = Request(tokens=list(prompt), say=say, **facts)
        self._new.put(request)
        return request, said

    def _counts(self) -> tuple[int, int]:
        batch = self._batch
        now = (batch.prompt_tokens, batch.cached_tokens) if batch is not None else (0, 0)
        return self._before[0] + now[0], self._before[1] + now[1]

    async def _load(self) -> None:
        prefix = min(self.context, _LONGEST_PREFIX)
        try:
            async with self._loading():
                file = await in_thread(self._open, prefix)
        except BaseException:
            await self._unload()
            raise
        self._batch = Batch(
            file, context=self.context, slots=self.slots, prefix=prefix, adapters=self._adapters
        )
        for adapter, tokens in self._prefixes:
            self._new.put(
                Request(tokens=list(tokens), say=lambda said: None, shared=len(tokens), adapter=adapter)
            )
        self._thread = threading.Thread(target=self._work, args=(self._batch,), daemon=True)
        self._thread.start()

    def _open(self, prefix: int) -> LlamaFile:
        keep = 1 + len(self._adapters)
        file = LlamaFile(
            self._model,
            context=self.context * self.slots + keep * prefix,
            sequences=self.slots + keep,
            threads=self._threads,
        )
        try:
            for adapter in self._adapters:  # read now, so that a bad one stops the start
                file.use_adapters({adapter: 1.0})
            file.use_adapters({})
        except ApplianceError:
            file.close()
            raise
        self._file = file
        return file

    async def _unload(self) -> None:
        if self._thread is not None:
            self._new.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._before, self._batch = self._counts(), None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _work(self, batch: Batch) -> None:
        """The thread: one step after the other, asleep while there is nothing to do."""
        waiting: list[Request] = []
        try:
            while True:
                while not self._new.empty() or not (batch.open or waiting):
                    request = self._new.get()
                    if request is None:
                        return
                    waiting.append(request)
                batch.admit(waiting)
                batch.step()
        finally:
            batch.fail(_ended())
            while not self._new.empty():
                waiting += filter(None, [self._new.get()])
            for request in waiting:
                request.say(_ended())


def _checked(said: Any) -> Any:
    if isinstance(said, ApplianceError):
        raise said
    return said


def _ended() -> EngineFailed:
    return EngineFailed("The model engine has stopped.", "Start the endpoint again.")
