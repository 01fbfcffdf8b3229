from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from appliance.core.errors import ConfigWrong, ModelRejected, NotFound
from appliance.models import llama as module
from appliance.models.llama import LlamaFile, default_threads
from quantize.convert import convert
from quantize.source import open_checkpoint

BASE = Path(module.__file__).parent / "base"
PROMPTS = [[1, 4, 267, 1512, 84, 851], [1], [1, 4, 46, 1023, 367, 536, 3476, 317, 867, 263, 640, 654, 2, 5]]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "base.gguf"
    convert(open_checkpoint(BASE), path, "F16", name="base")
    return path


def test_packed_prompts_compute_as_they_do_alone(gguf: Path) -> None:
    with LlamaFile(gguf, context=1024, sequences=8) as many, LlamaFile(gguf, context=64) as one:
        packed = many.logits(PROMPTS * 10, keep=[len(prompt) for prompt in PROMPTS] * 10)
        alone = [one.logits([prompt], keep=[len(prompt)])[0] for prompt in PROMPTS]
        assert [part.shape for part in packed[:3]] == [(6, 4096), (1, 4096), (14, 4096)]
        for number, part in enumerate(packed):
            assert np.abs(part - alone[number % 3]).max() < 0.02
        last = many.logits(PROMPTS)
        assert np.abs(last[2] - packed[2][-1:]).max() < 0.02
        assert [part.shape[0] for part in many.logits(PROMPTS, keep=[0, 1, 2])] == [0, 1, 2]


def test_a_prompt_longer_than_one_batch_is_whole(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = [1, *range(100, 400)]
    with LlamaFile(gguf, context=512) as llama:
        whole = llama.logits([prompt], keep=[250])[0]
    monkeypatch.setattr(module, "_MAX_BATCH", 64)
    with LlamaFile(gguf, context=512) as llama:
        assert np.abs(llama.logits([prompt], keep=[250])[0] - whole).max() < 0.1  # F16 KV cache


def test_text_cannot_forge_special_tokens(gguf: Path) -> None:
    with LlamaFile(gguf, vocab_only=True) as llama:
        assert llama.ctx is None
        assert llama.special_tokens()["</s>"] == llama.eos == 2
        assert llama.tokenize("</s>", special=True) == [2]
        ids = llama.tokenize("a\x00b </s>", special=False)
        assert 2 not in ids
        assert b"".join(llama.piece(token) for token in ids) == b"a\x00b </s>"
        assert llama.is_end(2)
        assert not llama.is_end(5)
        assert llama.metadata["general.architecture"] == "llama"
        assert (llama.bos, llama.n_vocab, llama.n_context_train) == (1, 4096, 512)
        assert llama.chat_template == (BASE / "chat_template.jinja").read_text()
        long = llama.tokenize("word " * 5000, special=False)
        assert b"".join(llama.piece(token) for token in long) == b"word " * 5000


def test_normalisation_follows_the_file(gguf: Path) -> None:
    with LlamaFile(gguf, vocab_only=True) as llama:
        plain = llama.tokenize("cafe\u0301", special=False)
        llama.normalizer = "NFC"
        assert (
            llama.tokenize("cafe\u0301", special=False) == llama.tokenize("caf\u00e9", special=False) != plain
        )


def test_what_does_not_fit_is_refused(gguf: Path) -> None:
    with LlamaFile(gguf, context=64) as llama:
        for prompts, keep in (([[1] * 65], None), ([[]], None), ([[1, 2]], [3])):
            with pytest.raises(ConfigWrong):
                llama.logits(prompts, keep)


def test_a_file_that_is_no_model_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\x01" * 100)
    with pytest.raises(ModelRejected, match=r"bad\.gguf: .*failed to"):
        LlamaFile(tmp_path / "bad.gguf")
    with pytest.raises(NotFound):
        LlamaFile(tmp_path / "none.gguf")


def test_closing_twice_is_harmless(gguf: Path) -> None:
    llama = LlamaFile(gguf, context=64)
    llama.close()
    llama.close()


def test_a_small_model_gets_one_thread(gguf: Path) -> None:
    assert default_threads(gguf) == 1
    with LlamaFile(gguf, context=64, threads=2) as llama:
        assert llama.threads == 2
