"""What a GGUF of the BERT family must say: a model that reads a whole text at once and writes none.

From src/models/bert.cpp, nomic-bert.cpp, llama-graph.cpp and llama-vocab.cpp of llama-cpp-python 0.3.36.
llama.cpp takes the row of a position without asking whether there is one, adds the row of the first
token type in no other type than F32, and puts its own numbers for the tokens that a file does not name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ENCODERS = ("bert", "nomic-bert")
TOKENIZERS = ("bert", "t5", "gpt2")  # of BERT, XLM-RoBERTa, RoBERTa
NEEDED = (
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_epsilon",
    "attention.causal",
)
_MOST_KINDS = 1 << 10  # of token types; BERT has 2
_PLAIN = ("F32", "F16", "BF16")
_NORMAL, _BYTE = 1, 6
# llama.cpp's numbers where the file has none; it always puts the first and the last one around a text
_NAMED = {"bos_token_id": 101, "seperator_token_id": 102, "unknown_token_id": 100}
_SPACE = "▁".encode()


def check(
    arch: str, values: dict[str, Any], said: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Check what only these architectures have; `said` are the values under `arch`.

    Raises:
        ValueError: what is wrong, in words.
    """
    if "tokenizer.chat_template" in values:
        raise ValueError(f"a {arch} model answers nothing, and it has a chat template")
    width, heads = said["embedding_length"], said["attention.head_count"]
    lengths = {said.get(f"attention.{name}", width // heads) for name in ("key_length", "value_length")}
    if width % heads or lengths != {width // heads} or said.get("attention.head_count_kv", heads) != heads:
        raise ValueError(f"{heads} heads do not divide {width}")
    if arch == "nomic-bert" and said.get("rope.dimension_count", width // heads) % 2:
        raise ValueError(f"rope turns an odd part of {width // heads}")
    if said.get("expert_count", 0) or said.get("nextn_predict_layers", 0):
        raise ValueError(f"a {arch} model has no experts and predicts no tokens")
    kinds = values.get("tokenizer.ggml.token_type_count", 0)
    if not 1 <= kinds <= _MOST_KINDS:
        raise ValueError(f"tokenizer.ggml.token_type_count is {kinds}")
    wanted: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
        "token_types.weight": (("F32",), (width, kinds))
    }
    if arch == "bert":
        wanted["position_embd.weight"] = (_PLAIN, (width, said["context_length"]))
        if "position_embd.weight" not in tensors:
            raise ValueError("no tensor position_embd.weight")
    for name, (types, shape) in wanted.items():
        if name in tensors and (tensors[name][0] not in types or tensors[name][1] != shape):
            raise ValueError(
                f"tensor {name} is {tensors[name][0]} {list(tensors[name][1])}, not {list(shape)}"
            )


def check_words(said: dict[str, Any], tokens: list[bytes]) -> None:
    """Check a WordPiece vocabulary as llama.cpp wants it; `said` are the values under `tokenizer.ggml`.

    Raises:
        ValueError: what is wrong, in words.
    """
    if "token_type" not in said:
        raise ValueError("its tokens have no types")
    types = said["token_type"]
    if (types == _BYTE).any():
        raise ValueError("a token is a byte, which WordPiece has not")
    for name, usual in _NAMED.items():
        if said.get(name, usual) >= len(tokens):
            raise ValueError(f"tokenizer.ggml.{name} is no token")
    first = said.get("bos_token_id", _NAMED["bos_token_id"])
    if said.get("cls_token_id", first) != first:
        raise ValueError("texts would begin with another token than cls_token_id")
    if not any(tokens[number].startswith(_SPACE) for number in np.flatnonzero(types == _NORMAL)):
        raise ValueError("no token begins a word: it was converted without the marks of llama.cpp")
