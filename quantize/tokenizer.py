"""The tokenizer in GGUF terms: vocabulary, merges, special tokens, name of the pre-tokenizer.

llama.cpp knows pre-tokenizers by name only. The name is looked up from the structure of
tokenizer.json and proven afterwards by behaviour (verify.py); what is not in the table is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ModelRejected
from quantize.source import Checkpoint

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_QWEN35 = (
    _ENGLISH
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    + r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = "byte-level with regex"
_PLAIN = "byte-level"
_DIGITS = "single digits"

Signature = tuple[tuple[str, ...], bool]
# (parts of the pre-tokenizer, whether whole words skip the merges) -> llama.cpp's name
PRE_TOKENIZERS: dict[Signature, str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
    ((_LLAMA3, _PLAIN), True): "llama-bpe",
    ((_LLAMA3, _PLAIN), False): "smaug-bpe",
    ((_QWEN2, _PLAIN), False): "qwen2",
    ((_QWEN35, _PLAIN), False): "qwen35",
}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What the GGUF says about tokens. `tokens` is padded to the model's embedding rows."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    specials: dict[str, int]
    add_bos: bool
    normalizer: str


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a byte-level BPE tokenizer.

    Raises:
        ModelRejected: another kind of tokenizer, an unknown pre-tokenizer, or ids that do not fit
            the model's embedding.
    """
    try:
        return _read(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise _refused(f"is damaged ({type(problem).__name__})") from problem


def _read(checkpoint: Checkpoint) -> Vocabulary:
    content = checkpoint.tokenizer
    model = content.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("dropout"):
        raise _refused(f"is {model.get('type')}, not byte-level BPE")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refused("marks parts of words")
    signature = (_parts(content.get("pre_tokenizer")), bool(model.get("ignore_merges")))
    pre = PRE_TOKENIZERS.get(signature)
    if pre is None:
        raise _refused("splits text in a way that llama.cpp has no name for")
    tokens, types = _tokens(content, int(checkpoint.config["vocab_size"]))
    specials = _specials(checkpoint, {token: i for i, token in enumerate(tokens)})
    return Vocabulary(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])],
        specials=specials,
        add_bos=_adds_bos(content, tokens, specials.get("bos")),
        normalizer=_normalizer(content.get("normalizer")),
    )


def _parts(node: Any) -> tuple[str, ...]:
    """The steps of a pre-tokenizer, each as one string of `PRE_TOKENIZERS`."""
    kind = (node or {}).get("type")
    if kind == "Sequence":
        return tuple(part for inner in node["pretokenizers"] for part in _parts(inner))
    if kind == "ByteLevel" and not node.get("add_prefix_space"):
        return (_GPT2 if node.get("use_regex", True) else _PLAIN,)
    if kind == "Digits" and node.get("individual_digits"):
        return (_DIGITS,)
    whole = (node or {}).get("behavior"), bool((node or {}).get("invert"))
    if kind == "Split" and whole in (("Isolated", False), ("Removed", True)):
        return (str(node.get("pattern", {}).get("Regex")),)
    return (f"unknown {kind}",)


def _normalizer(node: Any) -> str:
    """ "" or "NFC"; llama.cpp applies neither, so models/llama.py does."""
    if node is None:
        return ""
    if node.get("type") == "NFC":
        return "NFC"
    if node.get("type") == "Sequence" and not node.get("normalizers"):
        return ""
    raise _refused(f"normalises text ({node.get('type')})")


def _tokens(content: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    entries: dict[int, tuple[str, int]] = {i: (text, NORMAL) for text, i in content["model"]["vocab"].items()}
    for added in content.get("added_tokens", []):
        entries[added["id"]] = (added["content"], CONTROL if added.get("special") else USER_DEFINED)
    if max(entries) >= size:
        raise _refused(f"has ids up to {max(entries)}, but the model only {size} embeddings")
    padded = [entries.get(i, (f"[PAD{i}]", UNUSED)) for i in range(size)]
    tokens = [text for text, _ in padded]
    if len(set(tokens)) != size:
        raise _refused("has the same token twice")
    return tokens, [kind for _, kind in padded]


def _specials(checkpoint: Checkpoint, ids: dict[str, int]) -> dict[str, int]:
    """Ids of bos, eos, unk, pad: tokenizer_config first, since config.json often is behind it."""
    found: dict[str, int] = {}
    for role in ("bos", "eos", "unk", "pad"):
        entry = checkpoint.tokenizer_config.get(f"{role}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        number = checkpoint.config.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(text, str) and text in ids:
            found[role] = ids[text]
        elif text is None and type(number) is int and 0 <= number < len(ids):
            found[role] = number
    if "eos" not in found:
        raise _refused("has no end token")
    return found


def _adds_bos(content: dict[str, Any], tokens: list[str], bos: int | None) -> bool:
    """Whether plain encoding starts with BOS."""

    def steps(node: Any) -> list[Any]:
        if node and node.get("type") == "Sequence":
            return [step for inner in node["processors"] for step in steps(inner)]
        return [node] if node else []

    for step in steps(content.get("post_processor")):
        single = step.get("single") or [{}]
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in single[0]:
            return bos is not None and single[0]["SpecialToken"]["id"] == tokens[bos]
    return False


def _refused(why: str) -> ModelRejected:
    return ModelRejected(
        f"The tokenizer {why}; it cannot be converted with proof.",
        "Use a model with a byte-level BPE tokenizer of the GPT-2, Llama 3, SmolLM or Qwen kind.",
    )
