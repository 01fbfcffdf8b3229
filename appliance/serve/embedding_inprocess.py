"""The embedder where there is no llama-server: llama.cpp in this process, one text after the other."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from appliance.core.errors import EngineFailed
from appliance.models.llama import LlamaFile, library
from appliance.serve.checked import Loading, unchecked
from appliance.serve.embedding import POOLINGS, Form, Text, tokens_of
from appliance.serve.idle import Idle
from appliance.serve.threads import in_thread


class InProcessEmbedder:
    """An embedding model on llama-cpp-python's low-level API."""

    name = "in-process"

    def __init__(
        self,
        model: Path,
        form: Form,
        *,
        threads: int,
        loading: Loading = unchecked,
        sleep_after: float | None = None,
    ) -> None:
        self.width, self.context = form.width, form.context
        self._model, self._form, self._threads = model, form, threads
        self._loading = loading
        self._file: LlamaFile | None = None
        self._one = asyncio.Lock()
        self._idle = Idle(sleep_after, sleep=self._unload, wake=self._load)

    async def start(self) -> None:
        """See Embedder."""
        await self._load()
        self._idle.begin()

    async def health(self) -> bool:
        """See Embedder."""
        return self._idle.asleep or self._file is not None

    async def stop(self) -> None:
        """See Embedder."""
        await self._idle.end()
        async with self._one:
            await self._unload()

    async def tokenize(self, text: str) -> list[int]:
        """See Embedder."""
        async with self._idle.awake():
            content = self._form.reworded(text).encode("utf-8", "replace")
            room = len(content) + 8
            ids = (ctypes.c_int32 * room)()
            vocab = self._open().vocab
            count = library().llama_tokenize(vocab, content, len(content), ids, room, True, False)
            if count < 0:
                raise EngineFailed("A text could not be tokenised.", "Cut the text into parts.")
            return list(ids[:count])

    async def embed(self, texts: Sequence[Text]) -> list[list[float]]:
        """See Embedder."""
        async with self._idle.awake():
            prompts = await tokens_of(self, texts)
            async with self._one:
                return await in_thread(self._vectors, self._open(), prompts)

    def facts(self) -> dict[str, Any]:
        """See Embedder."""
        return {
            "engine": self.name,
            "gpu": "offloaded" if library().llama_supports_gpu_offload() else "",
            "context": self.context,
            "width": self.width,
            "pooling": POOLINGS[self._form.pooling],
            "threads": self._threads,
            "asleep": self._idle.asleep,
            "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
        }

    def _vectors(self, file: LlamaFile, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        lib = library()
        found = []
        for prompt in prompts:
            memory, count = lib.llama_get_memory(file.ctx), len(prompt)
            if memory:  # models that only encode have none
                lib.llama_memory_clear(memory, True)
            owners = np.zeros(count, np.int32)
            file.run(
                np.array(prompt, np.int32), np.arange(count, dtype=np.int32), owners, np.ones(count, np.int8)
            )
            vector = np.ctypeslib.as_array(lib.llama_get_embeddings_seq(file.ctx, 0), (self.width,))
            vector = vector.astype(float)
            found.append((vector / (np.linalg.norm(vector) or 1.0)).tolist())
        return found

    def _open(self) -> LlamaFile:
        if self._file is None:
            raise EngineFailed("The embedding model has been stopped.", "Start the endpoint again.")
        return self._file

    async def _load(self) -> None:
        try:
            async with self._loading():
                await in_thread(self._read)
        except BaseException:
            await self._unload()
            raise

    def _read(self) -> None:
        self._file = LlamaFile(
            self._model, context=self.context, threads=self._threads, pooling=self._form.pooling
        )

    async def _unload(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
