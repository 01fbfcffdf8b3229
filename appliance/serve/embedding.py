"""Texts to vectors: what the search in documents and /v1/embeddings stand on.

An embedding model is a GGUF file of its own, served by a llama-server that does nothing else, or by
llama.cpp in this process (embedding_inprocess.py). Both give the same vectors, of length 1. Models such as
BERT look at a whole text at once, which must therefore fit into one step of llama.cpp (its ubatch).
"""

from __future__ import annotations

import array
import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from appliance.core.errors import ConfigWrong, ModelRejected
from appliance.models.wording import pattern_of, reword
from appliance.models.wordpiece import normalizer_of
from appliance.serve.checked import Loading, unchecked
from appliance.serve.engine import default_threads, pick_binary
from appliance.serve.header import read_header, read_values
from appliance.serve.llama_server import LlamaServer, common_flags, devices

POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # llama_pooling_type
LONGEST_TEXT = 2048  # tokens; a text is computed in one step, whose memory grows with it
_SHORTEST = 16  # tokens that a model must read at once, two of which are not the text's
_AT_ONCE = 64  # texts in one request to the server
_TEXTS = 2  # texts that the server computes at the same time
Text = str | Sequence[int]


class Embedder(Protocol):
    """An embedding model. `width` numbers a vector; a text may have `context` tokens."""

    name: str
    width: int
    context: int

    async def start(self) -> None:
        """Load the model.

        Raises:
            EngineFailed: it does not load.
        """

    async def tokenize(self, text: str) -> list[int]:
        """The tokens of a text with the special ones that the model puts around it; it spells none itself."""

    async def embed(self, texts: Sequence[Text]) -> list[list[float]]:
        """A vector of length 1 for each text or list of tokens.

        Raises:
            ConfigWrong: a text has no token, or more than the context. EngineFailed: no answer.
        """

    async def health(self) -> bool:
        """Whether a request made now would be answered."""

    def facts(self) -> dict[str, Any]:
        """engine, gpu, context, width, pooling, threads, asleep, rss_mb."""

    async def stop(self) -> None:
        """Unload."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the file says of its vectors, and how texts are put before they are tokenised.

    Not `pooled`: the file says nothing of vectors, it is a model that writes text.
    """

    pooling: int
    pooled: bool
    width: int
    context: int
    normalizer: str | None
    space_prefix: str | None
    defined: tuple[str, ...]

    def reworded(self, text: str) -> str:
        """`text` in the tokenizer's own form (models/wording.py)."""
        specials = pattern_of(self.defined) if self.space_prefix else None
        return reword(text, normalizer=self.normalizer, space=self.space_prefix, specials=specials)


def read_form(path: Path) -> Form:
    """The form of the embedding model at `path`; without a `pooled` of its own it is the mean.

    Raises:
        ModelRejected: no whole GGUF file, one that scores pairs of texts (rerank), or of less than 16 tokens.
    """
    values = read_values(path)
    try:
        kind = values["general.architecture"]
        pooling = int(values.get(f"{kind}.pooling_type", 1)) or 1
        form = Form(
            pooling=pooling,
            pooled=bool(values.get(f"{kind}.pooling_type"))
            or not values.get(f"{kind}.attention.causal", True),
            width=int(values[f"{kind}.embedding_length"]),
            context=min(int(values[f"{kind}.context_length"]), LONGEST_TEXT),
            normalizer=normalizer_of(values),
            space_prefix=values.get("cloister.space_prefix"),
            defined=tuple(read_header(path).defined) if "cloister.space_prefix" in values else (),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        raise ModelRejected(f"{path.name} is no embedding model.", "Import another GGUF file.") from problem
    if pooling not in POOLINGS or form.context < _SHORTEST:
        raise ModelRejected(f"{path.name} gives no vectors of texts.", "Import an embedding model.")
    return form


def pick_embedder(
    wanted: str,
    model: Path,
    *,
    folder: Path,
    threads: int | None = None,
    loading: Loading = unchecked,
    memory: int | None = None,
    sleep_after: float | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Embedder:
    """The embedder for `model` (not started): "native" where its binary is, else "in-process".

    Raises:
        ConfigWrong: `wanted` is no engine. NotFound: native is wanted but was not built.
        ModelRejected: the file is no embedding model.
    """
    binary, form = pick_binary(wanted), read_form(model)
    threads = threads or default_threads(model)
    if binary is not None:
        return NativeEmbedder(
            binary,
            model,
            form,
            folder=folder,
            threads=threads,
            loading=loading,
            memory=memory,
            sleep_after=sleep_after,
            log=log,
        )
    from appliance.serve.embedding_inprocess import InProcessEmbedder

    return InProcessEmbedder(model, form, threads=threads, loading=loading, sleep_after=sleep_after)


def command(binary: Path, model: Path, socket: Path, *, form: Form, threads: int) -> list[str]:
    """The argv of a llama-server that only embeds."""
    size = str(form.context)
    return [
        *common_flags(binary, model, socket, threads=threads),
        *("--embeddings", "--pooling", POOLINGS[form.pooling]),
        # Without a unified cache texts that are computed together get wrong means.
        *("--ctx-size", str(_TEXTS * form.context), "--parallel", str(_TEXTS), "--kv-unified"),
        *("--batch-size", size, "--ubatch-size", size),
    ]


class NativeEmbedder:
    """An embedding model in a llama-server of its own."""

    name = "native"

    def __init__(
        self,
        binary: Path,
        model: Path,
        form: Form,
        *,
        folder: Path,
        threads: int,
        loading: Loading = unchecked,
        memory: int | None = None,
        sleep_after: float | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.width, self.context = form.width, form.context
        self._form, self._threads, self._gpu = form, threads, devices(binary)
        self.server = LlamaServer(
            partial(command, binary, model, form=form, threads=threads),
            folder=folder,
            files=[model],
            loading=loading,
            memory=memory,
            sleep_after=sleep_after,
            log=log,
        )
        self._room = asyncio.Semaphore(_TEXTS)

    async def start(self) -> None:
        """See Embedder."""
        await self.server.start()

    async def health(self) -> bool:
        """See Embedder."""
        return self.server.healthy()

    async def stop(self) -> None:
        """See Embedder."""
        await self.server.stop()

    async def tokenize(self, text: str) -> list[int]:
        """See Embedder."""
        body = {"content": self._form.reworded(text), "add_special": True, "parse_special": False}
        async with self.server.idle.awake():
            return list((await self.server.post("/tokenize", body))["tokens"])

    async def embed(self, texts: Sequence[Text]) -> list[list[float]]:
        """See Embedder."""
        found: list[list[float]] = []
        async with self.server.idle.awake():
            prompts = await tokens_of(self, texts)
            for at in range(0, len(prompts), _AT_ONCE):
                body = {"input": prompts[at : at + _AT_ONCE], "encoding_format": "base64"}
                async with self._room:
                    answer = await self.server.post("/v1/embeddings", body)
                rows = sorted(answer["data"], key=lambda row: row["index"])
                found += [list(array.array("f", base64.b64decode(row["embedding"]))) for row in rows]
        return found

    def facts(self) -> dict[str, Any]:
        """See Embedder."""
        return {
            "engine": self.name,
            "gpu": ", ".join(self._gpu),
            "context": self.context,
            "width": self.width,
            "pooling": POOLINGS[self._form.pooling],
            "threads": self._threads,
            "asleep": self.server.idle.asleep,
            "rss_mb": round(self.server.memory() / 2**20, 1),
        }


async def tokens_of(embedder: Embedder, texts: Sequence[Text]) -> list[list[int]]:
    """The tokens of each text.

    Raises:
        ConfigWrong: one has none, or more than the context.
    """
    found = [await embedder.tokenize(text) if isinstance(text, str) else list(text) for text in texts]
    for tokens in found:
        if not 0 < len(tokens) <= embedder.context:
            raise ConfigWrong(
                f"A text of {len(tokens)} tokens cannot be embedded; it may have 1 to {embedder.context}.",
                "Cut the text into parts.",
            )
    return found
