"""What the header check refuses and why, the limits of a child, and the way of an import through both."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_support
import numpy as np
import pytest
from fuzz_support import Parts, put_together, string, take_apart, tiny, tiny_adapter

from appliance.core.errors import ModelRejected
from appliance.core.home import Home
from appliance.models.safetensors import read_header
from quantize import foreign, header
from quantize.header import read_gguf
from tui.cli.entry import run as cloister
from tui.session import Session

U32, F32, BOOL, TEXT = 4, 6, 7, 8
Change = Callable[[Parts], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a child import this folder's modules."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


# --- GGUF


def put(key: str, kind: int, value: Any) -> Change:
    """Set a key-value."""
    if kind == TEXT:
        body = string(value.encode())
    elif isinstance(value, list):
        inner = TEXT if isinstance(value[0], bytes) else kind
        items = (
            map(string, value) if inner == TEXT else (struct.pack(fuzz_support.FORMS[kind], n) for n in value)
        )
        kind, body = 9, struct.pack("<IQ", inner, len(value)) + b"".join(items)
    else:
        body = struct.pack(fuzz_support.FORMS[kind], value)

    def change(parts: Parts) -> None:
        parts.pairs = [pair for pair in parts.pairs if pair[0] != key.encode()]
        parts.pairs.append((key.encode(), kind, body))

    return change


def drop(key: str) -> Change:
    def change(parts: Parts) -> None:
        parts.pairs = [pair for pair in parts.pairs if pair[0] != key.encode()]

    return change


def tensor(name: str, /, **changes: Any) -> Change:
    """Change a tensor's name, dims, kind or data; `gone` takes it out."""

    def change(parts: Parts) -> None:
        for at, (old, dims, kind, data) in enumerate(parts.tensors):
            if old == name.encode():
                if "gone" in changes:
                    del parts.tensors[at]
                    return
                now = {"name": old, "dims": dims, "kind": kind, "data": data} | changes
                parts.tensors[at] = (now["name"], now["dims"], now["kind"], now["data"])
                return
        raise AssertionError(name)

    return change


TOKENS = [b"<s>", b"</s>", b"<pad>"]
CASES: list[tuple[str, str, Change, str]] = [
    ("llama", "gpt2", put("llama.block_count", U32, 0), "block_count is 0"),
    ("llama", "gpt2", put("llama.block_count", U32, 3), "2 blocks, not 3"),
    ("llama", "gpt2", put("llama.block_count", U32, 1), "but 1 blocks"),
    ("llama", "gpt2", put("llama.block_count", U32, 513), "block_count is 513"),
    ("llama", "gpt2", put("llama.block_count", 10, 2), "has the type"),
    ("llama", "gpt2", drop("llama.block_count"), r"no llama\.block_count"),
    ("llama", "gpt2", put("llama.context_length", U32, 0), "context_length is 0"),
    ("llama", "gpt2", put("llama.embedding_length", U32, 128), "for 100 tokens|token_embd|of different"),
    ("llama", "gpt2", put("llama.attention.head_count", U32, 0), "head_count is 0"),
    ("llama", "gpt2", put("llama.attention.head_count_kv", U32, 3), "cannot share 3"),
    ("llama", "gpt2", put("llama.attention.head_count_kv", U32, 0), "head_count_kv is 0"),
    ("llama", "gpt2", put("llama.attention.head_count", U32, [4, 4]), "has the type"),
    ("llama", "gpt2", put("llama.attention.value_length", U32, 32), "of different length"),
    ("llama", "gpt2", put("llama.rope.dimension_count", U32, 8), "rope turns 8 of 16"),
    ("phi3", "llama", put("phi3.rope.dimension_count", U32, 7), "rope turns 7 of 16"),
    ("qwen2", "llama", put("qwen2.attention.head_count", U32, 8), "are not 64|different length"),
    ("gemma3", "gpt2", put("gemma3.attention.sliding_window", U32, 1 << 31), "sliding_window is"),
    ("gemma2", "llama", put("gemma2.attention.sliding_window_pattern", U32, 1), "no layer has a window"),
    (
        "gemma2",
        "llama",
        put("gemma2.attention.sliding_window_pattern", BOOL, [0, 0]),
        "no layer has a window",
    ),
    ("gemma2", "llama", put("gemma2.final_logit_softcapping", F32, 0.0), "softcapping is 0"),
    ("llama", "gpt2", put("llama.rope.freq_base", F32, float("nan")), "freq_base is nan"),
    ("llama", "gpt2", put("llama.rope.freq_base", F32, -1.0), "freq_base is -1"),
    ("llama", "gpt2", put("llama.rope.scaling.type", TEXT, "odd"), "scaling.type is unknown"),
    ("llama", "gpt2", put("llama.rope.scaling.factor", F32, 0.0), "factor is 0"),
    ("llama", "gpt2", put("llama.attention.causal", BOOL, 0), "no model that writes"),
    ("llama", "gpt2", put("llama.pooling_type", U32, 1), "pooling_type is 1"),
    ("llama", "gpt2", put("llama.expert_count", U32, 8), "0 of 8 experts"),
    ("llama", "gpt2", put("llama.expert_used_count", U32, 2), "2 of 0 experts"),
    ("llama", "gpt2", put("llama.expert_group_count", U32, 2), "of 2 groups"),
    ("llama", "gpt2", put("llama.nextn_predict_layers", U32, 2), "more layers for prediction"),
    ("llama", "gpt2", put("split.count", 2, 3), "one of several parts"),
    ("llama", "gpt2", put("general.type", TEXT, "mmproj"), "of the type 'mmproj'"),
    ("llama", "gpt2", put("general.type", U32, 1), "has the type"),
    ("llama", "gpt2", put("general.architecture", TEXT, "a b"), "architecture is 'a b'"),
    ("llama", "gpt2", put("general.alignment", 10, 32), "alignment is 32"),
    ("llama", "gpt2", put("general.alignment", U32, 48), "alignment is 48"),
    ("llama", "gpt2", put("general.name", TEXT, "My Phi-3"), "says phi-3"),
    ("llama", "gpt2", put("tokenizer.ggml.model", TEXT, "bert"), "tokenizer 'bert'"),
    ("llama", "gpt2", put("tokenizer.ggml.pre", TEXT, "whitespace"), "pre-tokenizer whitespace"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", TEXT, "x"), "tokens has the wrong type"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, TOKENS), "token_type for 3 tokens"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, [b"a", b"a", b"b"]), "the same token twice"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, [b"", b"[EMPTY_0]", b"b"]), "the same token twice"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, [b"a", b"a\0b", b"b"]), "the same token twice"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, [b"\xff", b"a", b"b"]), "utf-8"),
    ("llama", "gpt2", put("tokenizer.ggml.tokens", 0, [b"x" * 5000, b"a", b"b"]), "too long"),
    ("llama", "gpt2", put("tokenizer.ggml.token_type", F32, [1.0]), "token_type has the wrong type"),
    ("llama", "gpt2", put("tokenizer.ggml.token_type", 5, [9] * 101), "unknown type|for 101"),
    ("llama", "gpt2", put("tokenizer.ggml.merges", 0, [b"ab"]), "merge 0 is no pair"),
    ("llama", "gpt2", put("tokenizer.ggml.merges", 0, [b"a b", b"a "]), "merge 1 is no pair"),
    ("llama", "gpt2", drop("tokenizer.ggml.merges"), "no merges"),
    ("llama", "gpt2", put("tokenizer.ggml.eos_token_id", U32, 5000), "eos_token_id is no token"),
    ("llama", "gpt2", put("tokenizer.ggml.padding_token_id", 5, -1), "padding_token_id is no token"),
    ("llama", "gpt2", drop("tokenizer.ggml.bos_token_id"), "adds a bos token"),
    ("qwen2", "llama", put("tokenizer.ggml.scores", F32, [1.0]), "1 scores for"),
    ("qwen2", "llama", put("tokenizer.ggml.scores", U32, 1), "scores has the wrong type"),
    ("qwen2", "llama", put("tokenizer.ggml.scores", F32, [float("nan")] * 355), "no number"),
    ("llama", "t5", put("tokenizer.ggml.precompiled_charsmap", 0, [0] * 9), "charsmap is damaged"),
    (
        "llama",
        "t5",
        put("tokenizer.ggml.precompiled_charsmap", 0, [0, 4, 0, 0, 255, 255, 255, 127, *[0] * 1022]),
        "charsmap leads out",
    ),
    ("llama", "gpt2", put("tokenizer.chat_template", TEXT, "{{ lipsum() }}"), "lipsum"),
    ("llama", "gpt2", put("tokenizer.chat_template", U32, 4), "is no text"),
    ("llama", "gpt2", tensor("output_norm.weight", name=b"output.norm"), "belongs to no llama"),
    ("llama", "gpt2", tensor("output_norm.weight", name=b"output norm"), "tensor name"),
    ("llama", "gpt2", tensor("output_norm.weight", name=b"blk.7.attn_norm.weight"), "but 2 blocks"),
    ("llama", "gpt2", tensor("output_norm.weight", kind=26), "type I32"),
    (
        "llama",
        "gpt2",
        tensor("output_norm.weight", kind=1, data=bytes(128)),
        "one dimension and the type F16",
    ),
    ("llama", "gpt2", tensor("blk.1.attn_q.weight", gone=True), "block 1 has no attention"),
    ("phi3", "llama", tensor("blk.0.attn_qkv.weight", gone=True), "block 0 has no attention"),
    ("llama", "gpt2", tensor("token_embd.weight", gone=True), r"token_embd\.weight is \[\]"),
    ("llama", "gpt2", tensor("token_embd.weight", dims=[101, 64]), r"token_embd\.weight is \[101, 64\]"),
]


@pytest.mark.parametrize(("arch", "words", "change", "said"), CASES)
def test_a_header_that_contradicts_itself_is_refused(
    folder: Path, arch: str, words: str, change: Change, said: str
) -> None:
    parts = take_apart(tiny(folder, arch, words).read_bytes())
    change(parts)
    (folder / "changed.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match=said):
        read_gguf(folder / "changed.gguf")


def test_a_byte_token_and_the_bytes_must_be_there(folder: Path) -> None:
    content = tiny(folder, "qwen2", "llama").read_bytes()
    (folder / "x.gguf").write_bytes(content.replace(b"<0xC3>", b"<0xZZ>"))
    with pytest.raises(ModelRejected, match="is no byte"):
        read_gguf(folder / "x.gguf")
    parts = take_apart(content.replace(b"<0xC3>", b"<0xZZ>"))
    put("tokenizer.ggml.token_type", 5, [1] * 355)(parts)
    (folder / "x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match="no token for 1 bytes"):
        read_gguf(folder / "x.gguf")


def test_another_architecture_is_checked_in_what_all_have_in_common(folder: Path) -> None:
    parts = take_apart(tiny(folder, "llama", "gpt2").read_bytes())
    parts.pairs = [(key.replace(b"llama.", b"olmo."), kind, value) for key, kind, value in parts.pairs]
    put("general.architecture", TEXT, "olmo")(parts)
    put("olmo.attention.head_count_kv", U32, [2, 0])(parts)
    file = folder / "olmo.gguf"
    file.write_bytes(put_together(parts))
    assert read_gguf(file).values["general.architecture"] == "olmo"
    for change, said in (
        (put("olmo.rope.dimension_count", U32, 0), "dimension_count is 0"),  # turns without end
        (put("olmo.rope.dimension_count", U32, 64), "rope turns 64 of 16"),
        (put("olmo.attention.head_count_kv", U32, [2]), "1 items"),
        (put("olmo.feed_forward_length", 5, [2, -1]), "goes from -1"),
    ):
        worse = Parts(list(parts.pairs), parts.tensors)
        change(worse)
        file.write_bytes(put_together(worse))
        with pytest.raises(ModelRejected, match=said):
            read_gguf(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("adapter.type", TEXT, "control_vector"), "not lora"),
        (put("adapter.type", U32, 1), "has the type"),
        (drop("adapter.lora.alpha"), "no usable"),
        (put("adapter.lora.alpha", U32, 8), "has the type"),
        (put("adapter.lora.alpha", F32, 0.0), "no usable"),
        (tensor("blk.0.attn_q.weight.lora_a", gone=True), "are no pairs"),
        (tensor("blk.0.attn_q.weight.lora_a", name=b"blk.9.x.weight.lora_a"), "no half|no llama"),
        (tensor("blk.0.attn_q.weight.lora_a", dims=[4, 64]), r"is F32 \[4, 64\]"),
        (tensor("blk.0.attn_q.weight.lora_b", kind=26), "is I32"),
        (tensor("blk.0.attn_q.weight.lora_b", name=b"blk.0.attn_q.bias.lora_b"), "no half of a pair"),
    ],
)
def test_an_adapter_that_is_none_is_refused(folder: Path, change: Change, said: str) -> None:
    parts = take_apart(tiny_adapter(folder).read_bytes())
    change(parts)
    (folder / "adapter-x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match=said):
        read_gguf(folder / "adapter-x.gguf")


def test_a_folder_or_pipe_is_no_gguf(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path, tmp_path / "pipe.gguf"):
        with pytest.raises(ModelRejected, match="no regular file"):
            read_gguf(path)
    with pytest.raises(ModelRejected, match="no regular file"):
        read_header(tmp_path / "pipe.gguf")


# --- an import


def test_an_import_goes_through_header_child_and_registry(home: Home, folder: Path) -> None:
    file = tiny(folder, "qwen3", "gpt2")
    assert cloister(["--home", str(home.path), "model", "import", str(file), "--name", "other"]) == 0
    held = {model.name: model for model in Session(home.path).models()}["other"]
    assert held.kind == "gguf" and held.facts["architecture"] == "qwen3" and held.facts["imported"]


@pytest.mark.usefixtures("helpers")
def test_an_import_of_a_bad_file_leaves_nothing(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_(file: Path) -> tuple[int, str]:
        code = cloister(["--home", str(home.path), "model", "import", str(file), "--name", "bad"])
        return code, capsys.readouterr().err

    good = tiny(folder, "llama", "gpt2")
    parts = take_apart(good.read_bytes())
    put("llama.block_count", U32, 0)(parts)
    (folder / "unsound.gguf").write_bytes(put_together(parts))
    code, said = import_(folder / "unsound.gguf")
    assert code == 7 and "block_count is 0" in said and "try:" in said

    parts = take_apart(good.read_bytes())
    name, dims, kind, data = parts.tensors[0]
    parts.tensors[0] = (name, dims, kind, np.full(len(data) // 4, np.nan, np.float32).tobytes())
    (folder / "nan.gguf").write_bytes(put_together(parts))
    code, said = import_(folder / "nan.gguf")
    assert code == 7 and "llama.cpp does not load" in said and "invalid data" in said

    (folder / "cut.gguf").write_bytes(good.read_bytes()[:-4096])
    assert import_(folder / "cut.gguf")[0] == 7

    monkeypatch.setattr(foreign, "_PATIENCE", 4)
    for name, words in (("hang", "took longer than 4 s and was stopped"), ("crash", "crashed (SIGSEGV)")):
        monkeypatch.setattr(foreign, "try_file", getattr(fuzz_support, f"{name}_on"))
        began = time.monotonic()
        code, said = import_(good)
        assert code == 10 and words in said and "Copy the file again" in said
        assert time.monotonic() - began < 30
    assert Session(home.path).models() == []
    assert [path for path in home.models.rglob("*") if path.is_file()] == []


def test_a_header_is_the_same_however_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny(folder, "llama", "gpt2")
    whole = read_gguf(file)
    for chunk in (1, 7, 64):
        monkeypatch.setattr(header, "_CHUNK", chunk)
        assert read_gguf(file) == whole
