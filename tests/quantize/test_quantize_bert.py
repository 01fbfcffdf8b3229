# ruff: noqa: RUF001
"""BERT files of llama.cpp's converter: the same tokens and vectors as transformers, and no damage gets in."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import bert_support as bert
import numpy as np
import pytest
from fuzz_encoders import tiny_encoder
from fuzz_support import Parts, put_together, string, take_apart
from gguf import PoolingType

from appliance.core.errors import ModelRejected
from appliance.models.llama import LlamaFile
from appliance.serve.documents.embedding import opened, parts_of, vector_of
from quantize.foreign import check_gguf
from quantize.header import read_gguf

PLAIN = """the
The bed on ward 3 is free.
Is there a bed free?
knee-pain
Ä Ö Ü ß
médecin
ÜBER
façade, naïve, coöperate
Ağrı İYİ
ΟΔΟΣ
боль в спине
ЖАЖДА
医院的病人
痛は pain です
日本語、テスト。
한국 병원
ไทย
漢字A漢字b
🙂
ok🙂fine
👩‍⚕️ came
🇩🇪
5 µg/m²
37.5°C
±0.5
€20
½ tablet
“quoted” – text…
it's 's
a_b__c
x=y+z^2
(a)[b]{c}<d>
C:\temp
a@b.de
https://a.de/b?c=d#e
#1 ##2
[CLS] [SEP]
[PAD]the[MASK]
##ing
unbelievablenesses
zzzzqqq
MRI of the Knee
ǆ Ǆ ǅ
ﬁ ﬀ
Ⅳ ①
ａｂｃ
''\"\"``
--- ***"""
ODD = "|a|  |\n\t \r\n|e\u0301 a\u030a n\u0303|zero\u200bwidth|soft\u00adhyphen|nul\x00nul|\x07bell|\ufffd"
ODD += "|a\u00a0b|a\u2028b|a\u3000b|tab\tbed|\u0130\u0131"
TEXTS = [*PLAIN.splitlines(), *ODD.split("|"), "a" * 99, "9" * 100, "the " * 30]


def texts() -> list[str]:
    """About 200: those above, and some put together from their letters by chance."""
    chance, letters = random.Random(11), sorted({letter for text in TEXTS for letter in text} | set(" " * 9))
    drawn = ["".join(chance.choices(letters, k=chance.randrange(1, 40))) for _ in range(90)]
    words = [word for word in bert.vocabulary(cased=True)[5:] if not word.startswith("##")]
    return [*TEXTS, *drawn, *(" ".join(chance.choices(words, k=9)) for _ in range(60))]


@pytest.fixture(scope="module", params=[False, True], ids=["uncased", "cased"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    return bert.save(tmp_path_factory.mktemp("bert") / "checkpoint", cased=request.param), request.param


@pytest.fixture
def file(checkpoint: tuple[Path, bool], tmp_path: Path) -> Path:
    return bert.write(checkpoint[0], tmp_path / "bert.gguf", cased=checkpoint[1])


def test_tokens_are_those_of_transformers(checkpoint: tuple[Path, bool], file: Path) -> None:
    _, tokenizer = bert.theirs(checkpoint[0])
    found = texts()
    assert len(found) >= 200
    # Text that spells a special token is text here, on purpose: transformers reads it as the token.
    wanted = tokenizer(found, split_special_tokens=True)["input_ids"]
    with opened(file) as (llama, form):
        ours = [parts_of(llama, form, text) for text in found]
        bare = [llama.tokenize(text, special=False) for text in found]
    assert [(text, tokens) for text, (tokens,) in zip(found, ours, strict=True)] == list(
        zip(found, wanted, strict=True)
    )
    assert [[2, *tokens, 3] for tokens in bare] == wanted
    unknown = sum(tokens.count(1) for tokens in wanted)
    assert 50 < unknown < sum(map(len, wanted)) / 3  # the vocabulary knows most, and not all


def test_llama_cpp_alone_reads_some_texts_otherwise(checkpoint: tuple[Path, bool], file: Path) -> None:
    """Why words are made here (models/wordpiece.py): the test above would fail without."""
    with LlamaFile(file, vocab_only=True) as llama:
        differ = [
            text
            for text in texts()
            if llama.tokenize(text, special=False) != llama.tokenize(text, special=False, reworded=True)
        ]
    assert "한국 병원" in differ or checkpoint[1]


@pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.CLS])
def test_vectors_are_those_of_transformers(
    checkpoint: tuple[Path, bool], tmp_path: Path, pooling: PoolingType
) -> None:
    folder, cased = checkpoint
    file = bert.write(folder, tmp_path / "bert.gguf", cased=cased, pooling=pooling)
    with opened(file) as (llama, form):
        for text in ["", "a", *TEXTS[1:30:3], " ".join(["the bed on ward 3 is free"] * 72)]:
            ours, wanted = vector_of(llama, form, text), bert.their_vector(folder, text, pooling)
            assert len(parts_of(llama, form, text)) == 1
            np.testing.assert_allclose(ours, wanted, atol=2e-3)
            assert ours @ wanted / np.linalg.norm(ours) / np.linalg.norm(wanted) > 0.9999


def test_nomic_bert_is_that_of_transformers_too(tmp_path: Path) -> None:
    """Positions by rotation, no biases, a gate: nomic-embed-text."""
    folder = bert.save(tmp_path / "checkpoint", nomic=True)
    file = bert.write(folder, tmp_path / "nomic.gguf", nomic=True)
    assert check_gguf(file)["architecture"] == "nomic-bert"
    with opened(file) as (llama, form):
        for text in ["a", TEXTS[1], " ".join(["the bed on ward 3 is free"] * 60)]:
            ours, wanted = vector_of(llama, form, text), bert.their_vector(folder, text, PoolingType.MEAN)
            np.testing.assert_allclose(ours, wanted, atol=2e-3)
            assert ours @ wanted / np.linalg.norm(ours) / np.linalg.norm(wanted) > 0.9999


def test_a_bert_is_imported_as_an_embedding_model(file: Path) -> None:
    facts = check_gguf(file)
    assert (facts["architecture"], facts["embeds"], facts["context"]) == ("bert", bert.WIDTH, bert.CONTEXT)
    assert facts["task"] is None


# --- damage


def key(name: str, kind: int, value: bytes) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.pairs = [pair for pair in parts.pairs if pair[0] != name.encode()]
        parts.pairs.append((name.encode(), kind, value))

    return change


def number(name: str, value: int) -> Callable[[Parts], None]:
    return key(name, 4, struct.pack("<I", value))


def without(name: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.pairs = [pair for pair in parts.pairs if pair[0] != name.encode()]
        parts.tensors = [tensor for tensor in parts.tensors if tensor[0] != name.encode()]

    return change


def tensor(name: str, *, kind: int = 0, dims: list[int] | None = None) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        for at, (known, shape, _, data) in enumerate(parts.tensors):
            if known == name.encode():
                new = dims or shape
                size = int(np.prod(new)) * (2 if kind == 1 else 4)
                parts.tensors[at] = (known, new, kind, (data * 8)[:size])

    return change


def tokens(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Parts], None]:
    def changed(parts: Parts) -> None:
        words = map(bert.phantom, bert.vocabulary(cased=False))
        found = change([word.encode() for word in words])
        value = struct.pack("<IQ", 8, len(found)) + b"".join(map(string, found))
        key("tokenizer.ggml.tokens", 9, value)(parts)

    return changed


def types(kind: int) -> Callable[[Parts], None]:
    count = len(bert.vocabulary(cased=False))
    value = struct.pack(f"<IQ{count}i", 5, count, *[3] * 5, kind, *[1] * (count - 6))
    return key("tokenizer.ggml.token_type", 9, value)


WORDS = "tokenizer.ggml."
DAMAGE: dict[str, tuple[Callable[[Parts], None], str]] = {
    "causal": (key("bert.attention.causal", 7, b"\1"), "bert writes no text"),
    "nothing of causal": (without("bert.attention.causal"), "no bert.attention.causal"),
    "causal is a number": (number("bert.attention.causal", 0), "has the type"),
    "no context": (without("bert.context_length"), "no bert.context_length"),
    "more context than positions": (number("bert.context_length", 4096), "position_embd.weight is"),
    "less context than positions": (number("bert.context_length", 128), "position_embd.weight is"),
    "no positions": (without("position_embd.weight"), "no tensor position_embd"),
    "no layer norm": (without("bert.attention.layer_norm_epsilon"), "no bert.attention.layer_norm"),
    "no heads": (without("bert.attention.head_count"), "no bert.attention.head_count"),
    "no inner width": (without("bert.feed_forward_length"), "no bert.feed_forward_length"),
    "five heads": (number("bert.attention.head_count", 5), "heads"),
    "shared heads": (number("bert.attention.head_count_kv", 2), "heads do not divide"),
    "longer keys": (number("bert.attention.key_length", 32), "heads do not divide"),
    "longer values": (number("bert.attention.value_length", 32), "heads do not divide"),
    "experts": (
        lambda p: (number("bert.expert_count", 4)(p), number("bert.expert_used_count", 2)(p)),
        "experts",
    ),
    "rerank": (number("bert.pooling_type", 4), "pooling_type is 4"),
    "wider vectors": (number("bert.embedding_length_out", 4096), "embedding_length_out"),
    "narrower vectors": (number("bert.embedding_length_out", 8), "embedding_length_out"),
    "no kinds of token": (without(WORDS + "token_type_count"), "token_type_count is 0"),
    "many kinds of token": (number(WORDS + "token_type_count", 1 << 30), "token_type_count is"),
    "other kinds of token": (number(WORDS + "token_type_count", 3), "token_types.weight is"),
    "kinds of token in F16": (tensor("token_types.weight", kind=1), "token_types.weight is F16"),
    "norm in F16": (tensor("token_embd_norm.weight", kind=1), "one dimension and the type F16"),
    "no queries": (without("blk.0.attn_q.weight"), "no attention"),
    "a block too few": (number("bert.block_count", 1), "but 1 blocks"),
    "a block too many": (number("bert.block_count", 3), "of 2 blocks, not 3"),
    "a tensor of others": (
        lambda p: p.tensors.append((b"blk.0.ffn_norm.weight", [4], 0, bytes(16))),
        "no bert",
    ),
    "a template": (
        lambda p: (
            without("bert.pooling_type")(p),
            key("tokenizer.chat_template", 8, string(b"{{ messages }}"))(p),
        ),
        "has a chat template",
    ),
    "another tokenizer": (key(WORDS + "model", 8, string(b"llama")), "is none of bert"),
    "bytes": (types(6), "is no byte"),
    "an odd type": (types(9), "unknown type"),
    "no types": (without(WORDS + "token_type"), "have no types"),
    "first token out of range": (number(WORDS + "bos_token_id", 1 << 20), "bos_token_id is no token"),
    "last token out of range": (number(WORDS + "seperator_token_id", 9999), "seperator_token_id is no token"),
    "unknown token out of range": (number(WORDS + "unknown_token_id", 9999), "unknown_token_id is no token"),
    "another class token": (number(WORDS + "cls_token_id", 5), "another token than cls_token_id"),
    "lower case as a number": (number(WORDS + "normalizer.lowercase", 1), "wrong type"),
    "a token twice": (tokens(lambda found: [*found[:-1], found[-2]]), "same token twice"),
    "a token too few": (tokens(lambda found: found[:-1]), "token_type for"),
    "no phantom spaces": (
        tokens(lambda found: [t.replace("▁".encode(), b"##") for t in found]),
        "begins a word",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    return bert.write(bert.save(folder / "checkpoint"), folder / "bert.gguf").read_bytes()


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_before_llama_cpp_sees_it(sound: bytes, tmp_path: Path, name: str) -> None:
    parts = take_apart(sound)
    assert put_together(parts) == sound
    DAMAGE[name][0](parts)
    (tmp_path / "x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match=DAMAGE[name][1]):
        read_gguf(tmp_path / "x.gguf")


@pytest.mark.parametrize("lost", ["bos_token_id", "seperator_token_id", "unknown_token_id"])
def test_a_small_vocabulary_must_name_its_tokens(tmp_path: Path, lost: str) -> None:
    """llama.cpp would take 101, 102 and 100, and abort or read a token that is not there."""
    parts = take_apart(tiny_encoder(tmp_path, "bert", "bert").read_bytes())
    without(WORDS + lost)(parts)
    (tmp_path / "x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match="is no token"):
        read_gguf(tmp_path / "x.gguf")


def test_rotation_needs_an_even_width(tmp_path: Path) -> None:
    parts = take_apart(tiny_encoder(tmp_path, "nomic-bert", "bert").read_bytes())
    number("nomic-bert.attention.head_count", bert.WIDTH)(parts)
    (tmp_path / "x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match="an odd part of 1"):
        read_gguf(tmp_path / "x.gguf")


def test_what_is_left_to_llama_cpp_is_refused_in_its_child(sound: bytes, tmp_path: Path) -> None:
    parts = take_apart(sound)
    without("blk.1.attn_output_norm.bias")(parts)
    (tmp_path / "x.gguf").write_bytes(put_together(parts))
    with pytest.raises(ModelRejected, match="does not load"):
        check_gguf(tmp_path / "x.gguf")
