"""The engine where there is no llama-server: llama.cpp in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import ApplianceError, EngineFailed
from appliance.models.llama import LlamaFile
from appliance.serve.batching import Batch, Request
from appliance.serve.engine import Piece, Settings


class InProcess:
    """The GGUF file `model`; one thread owns the context, requests reach it through a queue."""

    name = "in-process"
    restarts = 0

    def __init__(self, model: Path, *, context: int, slots: int, threads: int) -> None:
        self.context, self.slots = context, slots
        self._model, self._threads = model, threads
        self._file: LlamaFile | None = None
        self._new: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """See Engine."""
        cells = self.context * self.slots
        self._file = await asyncio.to_thread(
            LlamaFile, self._model, context=cells, sequences=self.slots, threads=self._threads
        )
        self._thread = threading.Thread(target=self._work, args=(self._file,), daemon=True)
        self._thread.start()

    async def health(self) -> bool:
        """See Engine."""
        return self._thread is not None and self._thread.is_alive()

    async def stop(self) -> None:
        """See Engine."""
        if self._thread is not None:
            self._new.put(None)
            await asyncio.to_thread(self._thread.join)
        if self._file is not None:
            self._file.close()
            self._file = None

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See Engine."""
        if self._file is None:
            raise _ended()
        return self._file.tokenize(text, special, reworded=True)

    async def choose(
        self, prompt: Sequence[int], allowed: Sequence[int], *, again: bool = False
    ) -> list[float]:
        """See Engine."""
        request, said = self._ask(prompt, allowed=allowed, again=again)
        try:
            odds: list[float] = _checked(await said.get())
            return odds
        finally:
            request.over = True

    async def generate(self, prompt: Sequence[int], settings: Settings) -> AsyncGenerator[Piece, None]:
        """See Engine."""
        request, said = self._ask(prompt, settings=settings)
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
        said: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(item: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended in the meantime
                loop.call_soon_threadsafe(said.put_nowait, item)

        request = Request(tokens=list(prompt), say=say, **facts)
        self._new.put(request)
        return request, said

    def _work(self, file: LlamaFile) -> None:
        """The thread: one step after the other, asleep while there is nothing to do."""
        batch = Batch(file, context=self.context)
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
