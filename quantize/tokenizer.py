"""The tokenizer in GGUF terms, by kind: byte-level BPE, BPE with byte fallback, Unigram.

Whatever is written here is proven afterwards by behaviour (verify.py).
"""

from __future__ import annotations

from typing import Any

from quantize.bytelevel import is_bytelevel, read_bytelevel
from quantize.sentencepiece import flat, kinds, read_fallback, read_unigram
from quantize.source import Checkpoint
from quantize.theirs import in_use
from quantize.vocabulary import Vocabulary, entries, refused


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a checkpoint's tokenizer.

    Raises:
        ModelRejected: a kind of tokenizer that llama.cpp does not have, an unknown pre-tokenizer, or ids
            that do not fit the model's embedding.
        EngineFailed: transformers does not open it.
    """
    try:
        return _read(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise refused(f"is damaged ({type(problem).__name__})") from problem


def _read(checkpoint: Checkpoint) -> Vocabulary:
    if is_bytelevel(checkpoint.tokenizer):
        return read_bytelevel(checkpoint, _shared(checkpoint, checkpoint.tokenizer))
    model = checkpoint.tokenizer.get("model") or {}
    if model.get("type") not in ("BPE", "Unigram"):
        raise refused(f"is {model.get('type')}")
    if model["type"] == "BPE" and not model.get("byte_fallback"):
        raise refused("is BPE, but neither over bytes nor with bytes to fall back on")
    if not model["vocab"]:
        raise refused("is empty")
    content = in_use(checkpoint.folder)
    shared = _shared(checkpoint, content)
    return (read_fallback if content["model"]["type"] == "BPE" else read_unigram)(content, shared)


def _shared(checkpoint: Checkpoint, content: dict[str, Any]) -> Vocabulary:
    """What all kinds have in common."""
    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        vocab = {text: number for number, (text, _) in enumerate(vocab)}
    tokens, types = entries(vocab, content, int(checkpoint.config["vocab_size"]), kinds(content))
    specials = _specials(checkpoint, {token: i for i, token in enumerate(tokens)})
    return Vocabulary(
        model="",
        pre="",
        tokens=tokens,
        types=types,
        specials=specials,
        add_bos=_adds_bos(content, tokens, specials.get("bos")),
        normalizer=_normalizer(content),
    )


def _normalizer(content: dict[str, Any]) -> str:
    """ "" or "NFC", which llama.cpp leaves out and serving does. Steps that only write spaces may follow."""
    forms = [step["type"] for step in flat(content.get("normalizer"), "normalizers")]
    forms = [form for form in forms if form not in ("Prepend", "Replace") or is_bytelevel(content)]
    if forms and forms != ["NFC"]:
        raise refused(f"normalises text ({', '.join(forms)})")
    return "".join(forms)


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
        raise refused("has no end token")
    return found


def _adds_bos(content: dict[str, Any], tokens: list[str], bos: int | None) -> bool:
    """Whether plain encoding starts with BOS."""
    for step in flat(content.get("post_processor"), "processors"):
        single = step.get("single") or [{}]
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in single[0]:
            return bos is not None and single[0]["SpecialToken"]["id"] == tokens[bos]
    return False
