"""A model whose numbers run away: no crash, and no label that stands for nothing."""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path

import pytest
import serve_support as support
from gguf import GGUFReader
from test_serve_engine import BOTH

from appliance.core.errors import EngineFailed
from appliance.models.trie import LabelTrie
from appliance.serve.engine import pick_engine
from appliance.serve.labels import pick_label

TRIE = LabelTrie({"one": [5], "two": [6], "three": [7]}, 2)


def loud(folder: Path, factor: float) -> Path:
    """The label model with its logits `factor` times as far apart."""
    path = folder / "loud.gguf"
    shutil.copy(support.gguf(), path)
    reader = GGUFReader(path, "r+")
    (weights,) = [tensor for tensor in reader.tensors if tensor.name == "output_norm.weight"]
    weights.data[:] *= factor
    reader.data.flush()
    return path


@BOTH
def test_odds_too_small_for_a_number_are_none(tmp_path: Path, name: str) -> None:
    async def go() -> None:
        engine = pick_engine(name, loud(tmp_path, 30), folder=tmp_path / "e", context=64, slots=1, threads=1)
        await engine.start()
        try:
            least, most, _ = await engine.choose([1, 4], [5, 6, 7], owner="k")
            assert least < -100 and -1e-4 < most < 0
            assert (await pick_label(engine, TRIE, [1, 4], owner="k")).label == "two"
        finally:
            await engine.stop()

    asyncio.run(go())


@BOTH
def test_a_label_of_no_number_is_not_given(tmp_path: Path, name: str) -> None:
    async def go() -> None:
        engine = pick_engine(
            name, loud(tmp_path, math.nan), folder=tmp_path / "e", context=64, slots=1, threads=1
        )
        await engine.start()
        try:
            with pytest.raises(EngineFailed, match="no numbers"):
                await pick_label(engine, TRIE, [1, 4], owner="k")
        finally:
            await engine.stop()

    asyncio.run(go())
