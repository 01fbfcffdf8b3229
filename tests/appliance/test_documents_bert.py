"""A BERT as the embedding model of a collection: from its import to the passage found, by both engines."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bert_support as bert
import documents_support as d
import httpx
import numpy as np
import pytest
import serve_support as support
from gguf import PoolingType
from test_serve_engine import BOTH

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.models import importing
from appliance.serve.documents import collections
from appliance.serve.documents.embedding import Embedder as DocumentEmbedder
from appliance.serve.documents.embedding import embedder_id, local_embedder
from appliance.serve.documents.job import run
from appliance.serve.documents.parts import joined, parts
from appliance.serve.documents.retrieve import search
from appliance.serve.documents.status import status
from appliance.serve.documents.vectors import unit_vectors
from appliance.serve.embedding import Embedder, command, pick_embedder, read_form
from appliance.serve.opening import for_documents
from quantize.foreign import check_gguf

LONG = "医院的病人是人。" * 90 + "痛"  # one passage, and more tokens than a BERT reads
FILES: dict[str, str | bytes] = {
    "leave.txt": d.LEAVE,
    "visits.md": f"# Visits\n\n{d.VISITS}\n",
    "long.txt": LONG,
}
QUESTIONS = [d.LEAVE, "free beds", "人", "", "knee " * 700]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.save(tmp_path_factory.mktemp("bert") / "checkpoint")


@pytest.fixture
def gguf(checkpoint: Path, home: Home, tmp_path: Path) -> Path:
    """The GGUF file, imported as "minilm"."""
    file = bert.write(checkpoint, tmp_path / "bert.gguf")
    importing.import_gguf(home, file, "minilm", check=lambda path: {"embeds": bert.WIDTH}, who="tests")
    return file


def add(home: Home, folder: Path, embed: str | None = "minilm", number: str = "0001") -> dict[str, Any]:
    job = Job(id=number, kind="docs", folder=home.jobs / number, home=home, who="tests")
    job.folder.mkdir()
    asked = {} if embed is None else {"embed": embed}
    return run({"folder": str(folder), "collection": "policies", **asked}, job)


def embedding(folder: Path, name: str, model: Path, use: Callable[[Embedder], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        embedder = pick_embedder(name, model, folder=folder, threads=1)
        assert (embedder.name, embedder.width, embedder.context) == (name, bert.WIDTH, bert.CONTEXT)
        try:
            await embedder.start()
            return await use(embedder)
        finally:
            await embedder.stop()

    return asyncio.run(go())


def test_an_imported_bert_finds_passages_and_is_named(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    file = bert.write(checkpoint, tmp_path / "bert.gguf")
    importing.import_gguf(home, file, "minilm", check=check_gguf, who="tests")
    done = add(home, d.folder(tmp_path / "docs", FILES))
    assert (done["embedder"], done["passages"], done["in_parts"]) == ("minilm", 3, 1)
    known = status(home, "policies")
    assert (known.search, known.in_parts) == ("keywords and minilm", 1)
    with local_embedder(home, "minilm") as embedder:
        found = search(home, ["policies"], d.VISITS, embed=embedder)
        assert found.how == {"policies": "keywords and minilm"} and found.passages[0].file == "visits.md"
        (other,) = search(
            home, ["policies"], "医院的病人是人。医院的病人是人。", embed=embedder, limit=1
        ).passages
    assert other.file == "long.txt"


def test_a_long_passage_is_embedded_whole_and_counted(
    home: Home, gguf: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Against transformers: the mean of the parts, each read with the model's first and last token."""
    _, tokenizer = bert.theirs(checkpoint)
    whole = tokenizer(LONG)["input_ids"]
    assert len(whole) == 723  # eight signs a time, one at the end, two around
    cut = parts(whole, [2, 3], bert.CONTEXT)
    assert [len(part) for part in cut] == [362, 363]
    assert [part[0] for part in cut] == [2, 2] and [part[-1] for part in cut] == [3, 3]
    assert [token for part in cut for token in part[1:-1]] == whole[1:-1]
    each = [bert.their_vector(checkpoint, part, PoolingType.MEAN) for part in cut]
    wanted = joined(np.array(each), [len(part) for part in cut])
    with local_embedder(home, "minilm") as embedder:
        (ours,) = unit_vectors(embedder, [LONG])
        assert embedder.parts([LONG, LONG[:510], LONG[:511], ""]) == [2, 1, 2, 1]
        end = unit_vectors(embedder, [LONG, LONG[:-100] + "free beds " * 20])
    assert ours @ wanted / np.linalg.norm(wanted) > 0.9999
    assert end[0] @ end[1] < 0.9999, "the end of a long passage counts too"


def test_the_count_follows_the_collection(home: Home, gguf: Path, tmp_path: Path) -> None:
    place = d.folder(tmp_path / "docs", {**FILES, "more.txt": "人" * 700})
    assert add(home, place)["in_parts"] == 2
    (place / "new.txt").write_text("病" * 790)
    assert add(home, place, None, "0002")["in_parts"] == 3
    (place / "more.txt").unlink()
    assert add(home, place, None, "0003")["in_parts"] == status(home, "policies").in_parts == 2
    assert add(home, place, "none", "0004")["in_parts"] == 0
    assert (status(home, "policies").search, status(home, "policies").in_parts) == ("keywords only", 0)


def test_an_index_from_before_the_count_is_read_and_brought_up_to_date(
    home: Home, gguf: Path, tmp_path: Path
) -> None:
    place = d.folder(tmp_path / "docs", {"leave.txt": d.LEAVE})
    add(home, place)
    with sqlite3.connect(collections.index_path(home, "policies")) as link:
        link.execute("DROP TABLE long")
    assert status(home, "policies").in_parts == 0
    (place / "long.txt").write_text("人" * 700)
    assert add(home, place, None, "0002")["in_parts"] == 1


@BOTH
def test_both_engines_give_the_vectors_of_transformers(
    home: Home, gguf: Path, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    texts = [d.LEAVE, d.DOSE, "médecin ÜBER 痛, 한국!", "a"]

    async def use(embedder: Embedder) -> list[list[float]]:
        _, tokenizer = bert.theirs(checkpoint)
        assert [await embedder.tokenize(text) for text in [*texts, ""]] == tokenizer([*texts, ""])[
            "input_ids"
        ]
        together = await embedder.embed([*texts, [2, *[7] * 510, 3], texts[0]])
        np.testing.assert_allclose(together[-1], together[0], atol=1e-3)
        with pytest.raises(ConfigWrong, match="513 tokens"):
            await embedder.embed([[7] * 513])
        return together

    found = np.array(embedding(tmp_path / "e", name, gguf, use))
    wanted = np.array([bert.their_vector(checkpoint, text, PoolingType.MEAN) for text in texts])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (found[: len(texts)] * wanted).sum(1).min() > 0.9999
    np.testing.assert_allclose(found[: len(texts)], wanted, atol=1e-3)


@BOTH
def test_a_running_embedder_gives_the_vectors_of_the_index(
    home: Home, gguf: Path, tmp_path: Path, name: str
) -> None:
    """Questions at an endpoint and passages in the index must lie in one space, long ones too."""

    async def use(embedder: Embedder) -> tuple[np.ndarray, list[int]]:
        shown: DocumentEmbedder = for_documents(embedder, "minilm", embedder_id(home, "minilm"))
        vectors = await asyncio.to_thread(unit_vectors, shown, QUESTIONS)
        return vectors, await asyncio.to_thread(shown.parts, QUESTIONS)

    found, counted = embedding(tmp_path / "e", name, gguf, use)
    with local_embedder(home, "minilm") as embedder:
        assert counted == embedder.parts(QUESTIONS) == [1, 1, 1, 1, 2]
        assert (found * unit_vectors(embedder, QUESTIONS)).sum(1).min() > 0.9999


@BOTH
def test_a_model_of_few_positions_is_never_asked_for_more(home: Home, tmp_path: Path, name: str) -> None:
    """llama.cpp would end the process: it takes the row of a position without looking."""
    file = bert.write(bert.save(tmp_path / "checkpoint", context=40), tmp_path / "short.gguf", context=40)
    importing.import_gguf(home, file, "short", check=lambda path: {"embeds": bert.WIDTH}, who="tests")
    assert add(home, d.folder(tmp_path / "docs", FILES), "short")["in_parts"] == 3

    async def go() -> np.ndarray:
        embedder = pick_embedder(name, file, folder=tmp_path / "e", threads=1)
        await embedder.start()
        try:
            with pytest.raises(ConfigWrong, match="1 to 40"):
                await embedder.embed(["the bed " * 40])
            shown = for_documents(embedder, "short", embedder_id(home, "short"))
            return await asyncio.to_thread(unit_vectors, shown, [LONG])
        finally:
            await embedder.stop()

    with local_embedder(home, "short") as embedder:
        assert (asyncio.run(go()) * unit_vectors(embedder, [LONG])).sum() > 0.9999


def test_a_whole_text_fits_into_one_step_of_the_server(gguf: Path) -> None:
    """Else llama-server refuses texts of a model that looks at all of a text at once."""
    argv = command(Path("llama-server"), gguf, Path("s"), form=read_form(gguf), threads=1)
    assert argv[argv.index("--ubatch-size") + 1] == argv[argv.index("--batch-size") + 1] == str(bert.CONTEXT)


@pytest.mark.parametrize("engine", ["native", "in-process"])
def test_an_endpoint_answers_with_it(
    home: Home, gguf: Path, checkpoint: Path, tmp_path: Path, engine: str
) -> None:
    support.add_model(home, "plain", support.gguf(False))
    add(home, d.folder(tmp_path / "docs", {"visits.txt": d.VISITS, "leave.txt": d.LEAVE}))
    spec = {"models": ["plain"], "threads": 1, "embed": "minilm", "engine": engine, "ungated": True}
    with (
        support.endpoint(home, **spec) as (_, url, _),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {reader(home)}"}, timeout=60) as client,
    ):
        said = client.post("/v1/embeddings", json={"model": "minilm", "input": d.LEAVE}).json()
        wanted = bert.their_vector(checkpoint, d.LEAVE, PoolingType.MEAN)
        assert np.array(said["data"][0]["embedding"]) @ wanted / np.linalg.norm(wanted) > 0.9999
        long = client.post("/v1/embeddings", json={"model": "minilm", "input": "人" * 900})
        assert long.status_code == 400 and "902 tokens; this model takes 512" in long.text
        asked = {
            "model": "plain",
            "messages": [{"role": "user", "content": d.VISITS}],
            "collections": ["policies"],
            "max_tokens": 4,
        }
        answer = client.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        facts = client.get("/v1/models").json()["data"]
        assert "minilm" in [each["id"] for each in facts]


def reader(home: Home) -> str:
    """A key that may read the collection."""
    from appliance.security import keys

    return keys.new_key(home, "reader", "tests", collections=["policies"])[1]
