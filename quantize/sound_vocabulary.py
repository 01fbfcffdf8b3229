"""Is a GGUF's vocabulary one that llama.cpp can load, read with and write with?

From src/llama-vocab.cpp of llama-cpp-python 0.3.36. It asserts that tokens differ, looks bytes up without
asking whether they are there, and aborts when a model wants a first token that it does not name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from quantize import sound_encoder

if TYPE_CHECKING:
    from quantize.sound import Raw

_TOKENIZERS = ("gpt2", "llama", "t5", "gemma4")  # of models that write; the others are of none, or of tests
_UNSPLIT = ("whitespace", "gemma4")  # pre-tokenizers that leave spaces in words, on which gpt2 aborts
_DEFAULTS = {"llama": ("bos", "eos", "unknown"), "t5": ("eos", "unknown"), "bert": ("bos", "seperator")}
_MOST_TOKENS, _LONGEST_TOKEN = 1 << 21, 4096
_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")
_BYTE_TYPE, _LAST_TYPE = 6, 6
_KINDS = {
    "model": (8,),
    "pre": (8,),
    "tokens": (9, 8),
    "token_type": (9, 5),
    "merges": (9, 8),
    "suppress_tokens": (9, 5),
    "token_type_count": (4,),
    "add_bos_token": (7,),
    "add_eos_token": (7,),
    "add_sep_token": (7,),
    "add_space_prefix": (7,),
    "remove_extra_whitespaces": (7,),
    "normalizer.lowercase": (7,),
    "normalizer.strip_accents": (7,),
}
_PHI3 = (b"</s>", b"<unk>", b"<s>", b"<|endoftext|>")


def check(values: dict[str, Any], raw: Raw) -> int:
    """Check the tokenizer's keys; the number of tokens.

    Raises:
        ValueError: what is wrong, in words.
    """
    for name, kinds in _KINDS.items():
        if raw.kinds.get(f"tokenizer.ggml.{name}", kinds) != kinds:
            raise ValueError(f"tokenizer.ggml.{name} has the wrong type")
    if raw.kinds.get("tokenizer.ggml.scores", (9, 6)) not in ((9, 6), (9, 5)):
        raise ValueError("tokenizer.ggml.scores has the wrong type")
    for key in ("tokenizer.chat_template", "cloister.normalizer"):
        if raw.kinds.get(key, (8,)) != (8,):
            raise ValueError(f"{key} is no text")
    said = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in (values | raw.arrays).items()
        if key.startswith("tokenizer.ggml.")
    }
    model = str(said.get("model"))
    known = (
        sound_encoder.TOKENIZERS if values["general.architecture"] in sound_encoder.ENCODERS else _TOKENIZERS
    )
    if model not in known:
        raise ValueError(f"its tokenizer {model[:40]!r} is none of {', '.join(known)}")
    tokens = _tokens(said)
    _types(said, tokens)
    _identifiers(said, raw, model, len(tokens))
    if model == "bert":
        sound_encoder.check_words(said, tokens)
    elif model == "gpt2":
        if said.get("pre") in _UNSPLIT:
            raise ValueError(f"its pre-tokenizer {said['pre']} does not go with its tokenizer")
        _merges(said)
    elif model == "gemma4":
        _merges(said)
    elif model == "llama":
        held = set(tokens)
        missing = [n for n in range(256) if b"<0x%02X>" % n not in held and bytes([n]) not in held]
        if missing:
            raise ValueError(f"it has no token for {len(missing)} bytes")
    if "precompiled_charsmap" in said:
        _charsmap(said["precompiled_charsmap"], raw.kinds["tokenizer.ggml.precompiled_charsmap"])
    name = str(values.get("general.name", "")).lower()
    if ("phi3" in name or "phi-3" in name) and not set(_PHI3) <= set(tokens):
        raise ValueError("its general.name says phi-3, but its tokens are of another model")
    return len(tokens)


def _tokens(said: dict[str, Any]) -> list[bytes]:
    tokens: list[bytes] = said.get("tokens", [])
    if not 3 <= len(tokens) <= _MOST_TOKENS:
        raise ValueError(f"it has {len(tokens)} tokens")
    ended = (token.partition(b"\0")[0] for token in tokens)  # llama.cpp reads as far as the first NUL,
    named = [token or b"[EMPTY_%d]" % number for number, token in enumerate(ended)]  # and names what is empty
    if len(set(named)) != len(named):
        raise ValueError("the same token twice")
    if max(map(len, named)) > _LONGEST_TOKEN:
        raise ValueError("a token is too long")
    for token in named:
        token.decode("utf-8")
    return named


def _types(said: dict[str, Any], tokens: list[bytes]) -> None:
    for name in ("token_type", "scores"):
        if name in said and len(said[name]) != len(tokens):
            raise ValueError(f"{len(said[name])} {name} for {len(tokens)} tokens")
    scores = said.get("scores", np.zeros(1, np.float32))
    if not np.isfinite(scores).all():
        raise ValueError("a score is no number")
    types = said.get("token_type", np.ones(1, np.int32))
    if types.min() < 0 or types.max() > _LAST_TYPE:
        raise ValueError("a token has an unknown type")
    for number in np.flatnonzero(types == _BYTE_TYPE):
        if not _BYTE.fullmatch(tokens[number]):
            raise ValueError(f"token {number} is no byte")


def _identifiers(said: dict[str, Any], raw: Raw, model: str, count: int) -> None:
    """Special tokens must be tokens; a token to be added must be named."""
    for name, value in said.items():
        if not name.endswith("_token_id"):
            continue
        if raw.kinds[f"tokenizer.ggml.{name}"] != (4,) or value >= count:
            raise ValueError(f"tokenizer.ggml.{name} is no token")
    for role, named in (("bos", "bos"), ("eos", "eos"), ("sep", "seperator")):
        known = f"{named}_token_id" in said or named in _DEFAULTS.get(model, ())
        if said.get(f"add_{role}_token", False) and not known:
            raise ValueError(f"it adds a {role} token that it does not name")


def _merges(said: dict[str, Any]) -> None:
    merges = said.get("merges")
    if merges is None and said.get("pre") == "kimi-k2":
        return
    if not merges:
        raise ValueError("it has no merges")
    for number, merge in enumerate(merges):
        at = merge.find(b" ", 1)
        if at < 0 or at == len(merge) - 1 or len(merge) > 2 * _LONGEST_TOKEN:
            raise ValueError(f"merge {number} is no pair")


def _charsmap(held: Any, kinds: tuple[int, ...]) -> None:
    """SentencePiece's table of normalisations: a double array whose nodes must not lead out of it.

    uint32 size of the array in bytes, the array, then replacements that end in NUL each. A node at
    `n` leads by byte `c` to `base(n) ^ c`, which is its child if its lowest byte is `c`.
    """
    content = held.tobytes() if isinstance(held, np.ndarray) else b""
    if kinds not in ((9, 0), (9, 1)) or len(content) < 8:
        raise ValueError("its precompiled_charsmap is damaged")
    size = int.from_bytes(content[:4], "little")
    if size % 4 or size < 1024 or 4 + size >= len(content) or content[-1] != 0:
        raise ValueError("its precompiled_charsmap is damaged")
    nodes = np.frombuffer(content, "<u4", size // 4, 4)
    bases = (nodes >> 10) << ((nodes & (1 << 9)) >> 6)
    seen = np.zeros(len(nodes), bool)
    at = np.array([bases[0]], np.int64)  # where children of the nodes to visit start
    steps = np.arange(1, 256)
    while len(at):
        if at.max() | 0xFF >= len(nodes):
            raise ValueError("its precompiled_charsmap leads out of itself")
        found = at[:, None] ^ steps
        places = found[(nodes[found] & ((1 << 31) | 0xFF)) == steps]
        places = np.unique(places[~seen[places]])
        seen[places] = True
        at = places ^ bases[places]
        ends = at[(nodes[places] >> 8) & 1 == 1]
        if len(ends) and (ends.max() >= len(nodes) or _beyond(nodes[ends], len(content) - 4 - size)):
            raise ValueError("its precompiled_charsmap leads out of itself")


def _beyond(nodes: np.ndarray, room: int) -> bool:
    return bool((nodes & ((1 << 31) - 1)).max() >= room)
