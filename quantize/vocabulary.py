"""What a GGUF says about tokens, and how it is written: shared by all kinds of tokenizer.

Keys and token types: the format's page in llama.cpp (ggml/docs/gguf.md) and src/llama-vocab.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter

from appliance.core.errors import ModelRejected

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What the GGUF says about tokens. `tokens` is padded to the model's embedding rows.

    `model` is llama.cpp's kind: gpt2 (byte-level BPE, with `pre` and `merges`), llama (BPE over text, with
    `scores`) or t5 (Unigram, with `scores`). llama.cpp itself puts a space before each stretch of text
    where `prepend` is set. What it cannot do is left to serving (appliance/models/wording.py): the
    Unicode form `normalizer` ("" or NFC), and the `space` before a text ("", first or each).
    `rstrip`: special tokens swallow the white space behind them.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    specials: dict[str, int]
    add_bos: bool
    normalizer: str
    merges: list[str] | None = None
    scores: list[float] | None = None
    prepend: bool = False
    space: str = ""
    rstrip: bool = False

    def title(self, name: str) -> str:
        """`name` for general.name: only there can llama.cpp be told that special tokens strip.

        It does so where the name holds "phi3" (llama_vocab::impl::load, per token attributes).
        """
        return f"{name} phi3" if self.rstrip else name


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, chat_template: str) -> None:
    """Write the key-values of `vocabulary` and the chat template."""
    writer.add_string("tokenizer.ggml.model", vocabulary.model)
    writer.add_string("tokenizer.ggml.pre", vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for role, number in vocabulary.specials.items():
        writer.add_uint32(f"tokenizer.ggml.{_ROLES[role]}_token_id", number)
    writer.add_bool("tokenizer.ggml.add_bos_token", vocabulary.add_bos)
    writer.add_bool("tokenizer.ggml.add_eos_token", False)
    writer.add_bool("tokenizer.ggml.add_space_prefix", vocabulary.prepend)
    writer.add_string("tokenizer.chat_template", chat_template)
    writer.add_string("cloister.normalizer", vocabulary.normalizer or "none")
    if vocabulary.space:
        writer.add_string("cloister.space_prefix", vocabulary.space)


def write_vocabulary(path: Path, vocabulary: Vocabulary, name: str = "vocabulary") -> None:
    """A GGUF file with `vocabulary` and no weights, which llama.cpp opens with `vocab_only`."""
    writer = GGUFWriter(path, "llama")
    try:
        writer.add_string("general.name", vocabulary.title(name))
        add_vocabulary(writer, vocabulary, "")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def entries(
    vocab: dict[str, int], content: dict[str, Any], size: int, kinds: dict[str, int]
) -> tuple[list[str], list[int]]:
    """Texts and types of all ids up to `size`: `vocab`, the added tokens, and padding.

    `kinds` gives the types of entries that are neither ordinary nor added.

    Raises:
        ModelRejected: an id beyond `size`, a text under two ids (llama.cpp aborts), or a text with NUL.
    """
    found = {number: (text, kinds.get(text, NORMAL)) for text, number in vocab.items()}
    for added in content.get("added_tokens", []):
        kind = CONTROL if added.get("special") else USER_DEFINED
        found[added["id"]] = (added["content"], kinds.get(added["content"], kind))
    if max(found) >= size:
        raise refused(f"has ids up to {max(found)}, but the model only {size} embeddings")
    padded = [found.get(i, (f"[PAD{i}]", UNUSED)) for i in range(size)]
    tokens = [text for text, _ in padded]
    if len(set(tokens)) != size:
        raise refused("has the same token twice")
    if any("\0" in text for text in tokens):
        raise refused("has a token with a NUL character, at which llama.cpp ends it")
    return tokens, [kind for _, kind in padded]


def merges_of(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model in tokenizer.json, in order.

    Raises:
        ModelRejected: one stands there twice: for tokenizers the last one counts, for llama.cpp the first.
    """
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    seen: set[tuple[str, str]] = set()
    for left, right in merges:
        if (left, right) in seen:
            raise refused(f"has the merge {left!r} {right!r} twice", "Use the base's own tokenizer.json.")
        seen.add((left, right))
    return [(left, right) for left, right in merges]


def refused(why: str, try_this: str = "") -> ModelRejected:
    """The error for a tokenizer that cannot be written so that llama.cpp does the same."""
    return ModelRejected(
        f"The tokenizer {why}; it cannot be converted with proof.",
        try_this
        or "Use a model with a BPE tokenizer of the kind of GPT-2, Llama, Mistral, Qwen, Gemma or Phi-3.",
    )
