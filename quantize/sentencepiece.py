"""Tokenizers of SentencePiece's kind, ▁ for spaces: BPE with bytes to fall back on, or Unigram.

llama.cpp has no merges there: "llama" joins the two neighbours whose joined text is the token of the
highest score, "t5" finds the best sum of scores (llm_tokenizer_spm, llm_tokenizer_ugm in
src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantize.vocabulary import BYTE, UNKNOWN, USER_DEFINED, Vocabulary, merges_of, refused

_SPACE = "▁"
_SCHEMES = {"first": "first", "always": "each", "never": ""}
# What llama.cpp does where the model's name says phi3 (Vocabulary.title): all but these strip.
_NEVER_STRIP = {"<unk>", "<s>", "<|endoftext|>"}
_MOST_SPLITTING = 2_000_000_000  # characters copied to split every token in two; a vocabulary of 262k: 20 M
_MOST_RANKS = 1 << 24  # beyond, a float32 score does not hold each rank


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """How spaces are written: `prepend` as a character of its own before every stretch of text, `space`
    only before those without one (first: the text's beginning; each: after special tokens too)."""

    prepend: bool = False
    space: str = ""


def byte_tokens() -> dict[str, int]:
    """The 256 texts that stand for bytes, with their type."""
    return {f"<0x{byte:02X}>": BYTE for byte in range(256)}


def kinds(content: dict[str, Any]) -> dict[str, int]:
    """Token types that only the model part of tokenizer.json knows: unknown and bytes."""
    model = content["model"]
    unknown = model.get("unk_token")
    if model["type"] == "Unigram":
        number = model.get("unk_id")
        unknown = None if number is None else model["vocab"][number][0]
    return (byte_tokens() if model.get("byte_fallback") else {}) | ({unknown: UNKNOWN} if unknown else {})


def read_fallback(content: dict[str, Any], shared: Vocabulary) -> Vocabulary:
    """`shared` as BPE with byte fallback; a token's score is the rank of its first merge, negated.

    Raises:
        ModelRejected: the tokenizer does what llama.cpp cannot do.
    """
    model = content["model"]
    if model.get("dropout"):
        raise refused("drops merges at random")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise refused("marks parts of words")
    if missing := byte_tokens().keys() - model["vocab"].keys():
        raise refused(f"has no token for {len(missing)} of the 256 bytes")
    if model.get("ignore_merges"):
        raise refused("takes whole words as tokens, whatever its merges say")
    merges = merges_of(model)
    _check_merges(merges, shared.tokens, shared.types)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    last = len(merges) + len(shared.tokens)
    scores = [-float(ranks.get(text, last)) for text in shared.tokens]
    spaces = _spaces(content)
    return replace(
        shared,
        model="llama",
        pre="default",
        scores=scores,
        prepend=spaces.prepend,
        space=spaces.space,
        rstrip=_rstrips(content, shared.specials, set(shared.tokens)),
    )


def _check_merges(merges: Sequence[tuple[str, str]], tokens: Sequence[str], types: Sequence[int]) -> None:
    """Check that joining by score is joining by merges, on any text.

    llama.cpp joins whatever gives a token, merge or not, and a token has one score. What is cut out of the
    text beforehand (user-defined tokens) is never joined. The order of one token's own merges shows only
    where two of them overlap (a+ba and ab+a in "ababa"); every vocabulary of SentencePiece has such.

    Raises:
        ModelRejected: it is not.
    """
    cut_out = {text for text, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED}
    known = set(tokens) - cut_out
    if len(merges) + len(tokens) > _MOST_RANKS or sum(len(text) ** 2 for text in known) > _MOST_SPLITTING:
        raise refused("has too many merges, or too long tokens")
    bytes_, listed = byte_tokens(), set(merges)
    joining = [pair for pair in merges if "".join(pair) not in cut_out]
    for left, right in joining:
        if left in bytes_ or right in bytes_:
            raise refused(f"has the merge {left!r} {right!r} of a byte, which llama.cpp does not join")
    _check_ranks(joining)
    for text in known:
        for at in range(1, len(text)):
            left = text[:at]
            if at > 1 and left not in known:
                continue
            right = text[at:]
            if (right in known or len(right) == 1) and (left, right) not in listed:
                raise refused(f"has no merge for {left!r} {right!r}, which llama.cpp joins all the same")


def _check_ranks(merges: Sequence[tuple[str, str]]) -> None:
    """Check that the merges of a token follow each other, so that one score can stand for them.

    Tokens of equal score, as which SentencePiece holds runs of spaces, are ranked by transformers as
    (length of left, of right); among runs of one character that is let pass.
    """
    last = {left + right: place for place, (left, right) in enumerate(merges)}
    start = end = 0
    for place, (left, right) in enumerate(merges):
        end = max(end, last[left + right])
        if place < end:
            continue
        texts = {left + right for left, right in merges[start : place + 1]}
        lengths = [(len(left), len(right)) for left, right in merges[start : place + 1]]
        runs = all(len(set(text)) == 1 for text in texts)
        if len(texts) > 1 and not (runs and lengths in (sorted(lengths), sorted(lengths, reverse=True))):
            raise refused(
                f"ranks the merges of {min(texts)!r} and other tokens by turns; a score cannot say that"
            )
        start = place + 1


def read_unigram(content: dict[str, Any], shared: Vocabulary) -> Vocabulary:
    """`shared` as Unigram.

    Raises:
        ModelRejected: it falls back on bytes or normalises by a table: llama.cpp does that otherwise.
    """
    model = content["model"]
    if model.get("byte_fallback"):
        raise refused(
            "is Unigram with byte fallback, where llama.cpp writes <unk> for characters it does not know"
        )
    if model.get("unk_id") is None:
        raise refused("is Unigram without a token for what is unknown")
    spaces = _spaces(content)
    if spaces.prepend:
        raise refused("is Unigram and puts a second space before spaces")
    known = {text: float(score) for text, score in model["vocab"]}
    scores = [known.get(text, 0.0) for text in shared.tokens]
    return replace(shared, model="t5", pre="default", scores=scores, space=spaces.space)


def _spaces(content: dict[str, Any]) -> Spaces:
    """Read from the normalizer (Replace and Prepend) or the pre-tokenizer (Metaspace)."""
    prepend = replaced = False
    for step in flat(content.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == _SPACE and not replaced:
            prepend = True
        elif step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == _SPACE:
            replaced = True
        elif step["type"] != "NFC" or prepend or replaced:
            raise refused(f"normalises text ({step['type']})")
    space, known = "", replaced
    for step in flat(content.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace" and step["replacement"] == _SPACE and not prepend:
            space, known = _SCHEMES[step["prepend_scheme"]], True
        elif step["type"] != "Split" or step["pattern"] != {"String": " "} or not replaced:
            raise refused(f"splits text before its BPE ({step['type']})")
    if not known:
        raise refused(f"does not write spaces as {_SPACE}")
    return Spaces(prepend=prepend, space=space)


def flat(node: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or post-processor, Sequences opened."""
    if not node:
        return []
    if node["type"] == "Sequence":
        return [step for each in node[inner] for step in flat(each, inner)]
    return [node]


def _rstrips(content: dict[str, Any], specials: dict[str, int], tokens: set[str]) -> bool:
    """Whether exactly those tokens strip that llama.cpp can be told to strip (Phi-3's)."""
    added = {entry["content"]: bool(entry.get("rstrip")) for entry in content.get("added_tokens", [])}
    wanted = {text for text, strips in added.items() if strips}
    return bool(wanted) and wanted == added.keys() - _NEVER_STRIP and {*_NEVER_STRIP, "</s>"} <= tokens
