"""Byte-level BPE: every byte is a character of the vocabulary, words are split by a pre-tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantize.pretokenizer import PRE_TOKENIZERS, parts
from quantize.search import search
from quantize.source import Checkpoint
from quantize.vocabulary import Vocabulary, merges_of, refused


def is_bytelevel(content: dict[str, Any]) -> bool:
    """Whether tokenizer.json says BPE over bytes."""
    model = content.get("model") or {}
    steps = " ".join(_types(content.get("pre_tokenizer")))
    return model.get("type") == "BPE" and not model.get("byte_fallback") and "ByteLevel" in steps


def _types(node: Any) -> list[str]:
    inner = (node or {}).get("pretokenizers", [])
    return [str((node or {}).get("type")), *(kind for each in inner for kind in _types(each))]


def read_bytelevel(checkpoint: Checkpoint, shared: Vocabulary) -> Vocabulary:
    """`shared` with merges and the pre-tokenizer's name, from the table or by search.

    Raises:
        ModelRejected: the tokenizer does what llama.cpp cannot do, or llama.cpp has no name for it.
    """
    content = checkpoint.tokenizer
    model = content["model"]
    if model.get("dropout"):
        raise refused("drops merges at random")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise refused("marks parts of words")
    merges = [" ".join(pair) for pair in merges_of(model)]
    vocabulary = replace(shared, model="gpt2", merges=merges)
    whole_words = bool(model.get("ignore_merges"))
    pre = PRE_TOKENIZERS.get((parts(content.get("pre_tokenizer")), whole_words))
    cleans = bool(checkpoint.tokenizer_config.get("clean_up_tokenization_spaces"))
    if pre is None:
        pre = search(checkpoint.folder, vocabulary, whole_words=whole_words, cleans=cleans)
    return replace(vocabulary, pre=pre)
