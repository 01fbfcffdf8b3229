"""Vectors of texts, from both engines: the same, of length 1, and by the file's own pooling."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import serve_support as support
from gguf import GGUFReader, GGUFWriter
from test_serve_engine import BOTH

from appliance.core.errors import ConfigWrong, ModelRejected
from appliance.models.llama import LlamaFile, library
from appliance.serve.embedding import Embedder, command, pick_embedder, read_form

Vectors = list[list[float]]


def embedding(
    folder: Path, name: str, use: Callable[[Embedder], Awaitable[Vectors]], **rest: float | None
) -> Vectors:
    async def go() -> Vectors:
        embedder = pick_embedder(name, support.gguf(False), folder=folder, threads=1, **rest)
        assert (embedder.name, embedder.width) == (name, 256)
        try:
            await embedder.start()
            return await use(embedder)
        finally:
            await embedder.stop()

    return asyncio.run(go())


def with_pooling(folder: Path, pooling: int) -> Path:
    """The base's file, which says that its vectors are pooled so."""
    path = folder / "pooled.gguf"
    reader = GGUFReader(support.gguf(False))
    writer = GGUFWriter(path, "llama")
    for name in ("context_length", "embedding_length"):
        writer.add_uint32(f"llama.{name}", int(reader.fields[f"llama.{name}"].contents()))
    writer.add_uint32("llama.pooling_type", pooling)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def all_texts(embedder: Embedder) -> Vectors:
    tokens = [await embedder.tokenize(text) for text in support.TEXTS]
    found = await embedder.embed([*support.TEXTS, *tokens, support.TEXTS[0]])
    count = len(support.TEXTS)
    # The same text gives the same vector: as tokens, alone, among others.
    np.testing.assert_allclose(found[:count], found[count : 2 * count], atol=2e-3)
    np.testing.assert_allclose(found[-1], found[0], atol=2e-3)
    np.testing.assert_allclose((await embedder.embed([support.TEXTS[0]]))[0], found[0], atol=2e-3)
    for vector in found:
        assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-5)
    return found[:count]


def test_both_embed_alike(tmp_path: Path) -> None:
    one = np.array(embedding(tmp_path / "a", "native", all_texts))
    other = np.array(embedding(tmp_path / "b", "in-process", all_texts))
    assert (one * other).sum(1).min() > 0.999
    between = one @ one.T
    assert between[~np.eye(len(one), dtype=bool)].max() < 0.99


def test_the_vector_is_the_mean_of_what_the_model_computes(tmp_path: Path) -> None:
    """Against the last layer of every token, which llama.cpp gives without pooling."""
    form = read_form(support.gguf(False))
    assert form.pooling == 1

    async def use(embedder: Embedder) -> Vectors:
        return await embedder.embed([[5, 300, 900, 1200]])

    (found,) = embedding(tmp_path, "in-process", use)
    with LlamaFile(support.gguf(False), context=64, threads=1, pooling=0) as file:
        count = np.arange(4, dtype=np.int32)
        file.run(np.array([5, 300, 900, 1200], np.int32), count, count * 0, np.ones(4, np.int8))
        rows = np.ctypeslib.as_array(library().llama_get_embeddings(file.ctx), (4, 256)).astype(float)
    mean = rows.mean(0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


@BOTH
def test_texts_that_do_not_fit_are_refused_with_counts(tmp_path: Path, name: str) -> None:
    async def use(embedder: Embedder) -> Vectors:
        assert embedder.context == 512
        assert len(await embedder.embed([[7] * 512])) == 1
        for wrong in ([[7] * 513], [[]], ["knee " * 900]):
            with pytest.raises(ConfigWrong, match=r"tokens"):
                await embedder.embed(wrong)
        assert await embedder.embed([]) == []
        # A text that spells a special token is text.
        assert len(await embedder.tokenize("</s>")) > 1
        return []

    embedding(tmp_path, name, use)


@BOTH
def test_many_at_once_keep_their_order(tmp_path: Path, name: str) -> None:
    async def use(embedder: Embedder) -> Vectors:
        texts = [[200 + n, 300 + n, 400] for n in range(100)]
        whole, *parts = await asyncio.gather(
            embedder.embed(texts), *(embedder.embed([t]) for t in texts[:20])
        )
        np.testing.assert_allclose(whole[:20], [vector for (vector,) in parts], atol=5e-3)
        return whole

    embedding(tmp_path, name, use)


@BOTH
def test_an_embedder_sleeps_and_wakes(tmp_path: Path, name: str) -> None:
    async def use(embedder: Embedder) -> Vectors:
        before = await embedder.embed(["knee"])
        for _ in range(6000):
            if embedder.facts()["asleep"]:
                break
            await asyncio.sleep(0.01)
        assert embedder.facts()["asleep"] and await embedder.health()
        np.testing.assert_allclose(await embedder.embed(["knee"]), before, atol=1e-6)
        return before

    embedding(tmp_path, name, use, sleep_after=0.1)


@pytest.mark.parametrize(("pooling", "word"), [(0, "mean"), (1, "mean"), (2, "cls"), (3, "last")])
def test_the_pooling_is_the_files_own(tmp_path: Path, pooling: int, word: str) -> None:
    form = read_form(with_pooling(tmp_path, pooling))
    argv = command(Path("llama-server"), Path("m"), Path("s"), form=form, threads=1)
    assert argv[argv.index("--pooling") + 1] == word


def test_a_file_that_ranks_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected):
        read_form(with_pooling(tmp_path, 4))
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelRejected):
        read_form(tmp_path / "no.gguf")
