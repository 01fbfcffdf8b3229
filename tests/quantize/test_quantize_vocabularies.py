"""Real vocabularies give the ids that their own tokenizers give, all of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.vocabularies import compare, fixtures, with_texts

NAMES = ("gpt-2", "llama-bpe", "qwen2", "qwen35", "starcoder", "llama-spm", "phi-3", "gemma-4")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """CLOISTER_VOCABULARIES, or fetched."""
    given = os.environ.get("CLOISTER_VOCABULARIES")
    try:
        with fixtures(Path(given) if given else None) as found:
            yield found
    except (OSError, subprocess.SubprocessError) as problem:
        pytest.skip(f"llama.cpp's vocabularies cannot be fetched ({problem}); set CLOISTER_VOCABULARIES")


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_expected_ids(folder: Path, name: str) -> None:
    (file,) = [file for file in with_texts(folder) if file.name == f"ggml-vocab-{name}.gguf"]
    found = compare(file)
    assert found.texts >= 46
    assert (found.theirs, found.ours) == (found.texts, found.texts)
    assert found.proof == found.proof_texts
