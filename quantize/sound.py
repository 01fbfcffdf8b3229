"""Does a GGUF's header agree with itself? What llama.cpp trusts is checked here.

The rules come from reading llama.cpp as of llama-cpp-python 0.3.36: src/llama-model.cpp, llama-hparams.cpp,
models/*.cpp, llama-adapter.cpp and ggml/src/gguf.cpp. Where those would abort, divide by zero or allocate
by a number out of the file, the file is refused. The architectures that this version makes and those of
embedding models (sound_encoder.py) are checked to the last name; of any other, what every architecture
has in common. Tokens: sound_vocabulary.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES

from appliance.models.prompt import check_template
from quantize import sound_encoder, sound_vocabulary
from quantize.sound_encoder import ENCODERS

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
_KNOWN = (*ARCHITECTURES, *ENCODERS)
Tensors = dict[str, tuple[str, tuple[int, ...]]]

# key -> least, most (llama-hparams.h: 512 layers, 1024 experts; the others far beyond any model)
_COUNTS = {
    "context_length": (1, 1 << 27),
    "embedding_length": (1, 1 << 18),
    "block_count": (1, 512),
    "feed_forward_length": (1, 1 << 22),
    "vocab_size": (1, 1 << 22),
    "attention.head_count": (1, 1 << 14),
    "attention.head_count_kv": (1, 1 << 14),
    "attention.sliding_window": (0, 1 << 22),  # times the sequences, it must fit 32 bits
    "attention.key_length": (1, 1 << 14),
    "attention.value_length": (1, 1 << 14),
    "attention.key_length_swa": (1, 1 << 14),
    "attention.value_length_swa": (1, 1 << 14),
    "rope.dimension_count": (1, 1 << 14),
    "rope.dimension_count_swa": (1, 1 << 14),
    "expert_count": (0, 1024),
    "expert_used_count": (0, 1024),
    "expert_group_count": (0, 1024),
    "expert_group_used_count": (0, 1024),
    "nextn_predict_layers": (0, 511),
    "pooling_type": (0, 0),
    "embedding_length_out": (1, 1 << 18),
}
_PER_LAYER = (
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "expert_used_count",
)
_WINDOWS = "attention.sliding_window_pattern"
_FLOATS = {
    "attention.layer_norm_rms_epsilon": (0.0, 1.0),
    "attention.layer_norm_epsilon": (0.0, 1.0),
    "rope.freq_base": (1e-3, 1e15),
    "rope.freq_base_swa": (1e-3, 1e15),
    "rope.scaling.factor": (1e-3, 1e6),
    "rope.scale_linear": (1e-3, 1e6),
    "attn_logit_softcapping": (1e-3, 1e6),
    "final_logit_softcapping": (1e-3, 1e6),
}
_ROPE_SCALING = ("none", "linear", "yarn", "longrope")  # another makes llama.cpp abort
_TEXTS = ("general.architecture", "general.type", "general.name", "adapter.type")
_POOLINGS = 3  # mean, cls, last; with 4 the file scores pairs of texts
_NEEDED = ("context_length", "embedding_length", "block_count")
_NEEDED_HERE = ("feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_BLOCK = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.")
_ENDS = ("weight", "bias", "scale", "input_scale")
_PLAIN = ("F32", "F16", "BF16")
_NO_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")  # of no use in a matrix product
_ROPE_FACTORS = ("rope_freqs", "rope_factors_long", "rope_factors_short")
_LARGEST_RANK = 4096


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Key -> type code, or (9, code of the items); key -> items, of those arrays that are checked."""

    kinds: dict[str, tuple[int, ...]]
    arrays: dict[str, Any]


def wants(key: str) -> bool:
    """Whether `check` looks into the array `key`."""
    return key.startswith("tokenizer.ggml.") or key.endswith((*_PER_LAYER, _WINDOWS))


def check(values: dict[str, Any], raw: Raw, tensors: Tensors) -> None:
    """Check a model's or adapter's header as a whole.

    Raises:
        ValueError: what is wrong, in words.
        ModelRejected: the chat template is not allowed.
    """
    for key in _TEXTS:
        _kind(raw, key, STRING)
    arch = values.get("general.architecture")
    if arch is None:
        raise ValueError("no general.architecture")
    if not re.fullmatch(r"[a-z0-9._-]{1,40}", arch):
        raise ValueError(f"general.architecture is {arch[:40]!r}")
    if values.get("split.count", 0) not in (0, 1):
        raise ValueError("it is one of several parts; merge them with llama-gguf-split")
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    for name in tensors:
        if not _NAME.fullmatch(name):
            raise ValueError(f"tensor name {name!r}")
    kind = values.get("general.type", "model")
    if kind == "adapter":
        _check_adapter(arch, values, raw, tensors)
        return
    if kind != "model":
        raise ValueError(f"it is no model but of the type {kind[:40]!r}")
    said = {
        key.removeprefix(f"{arch}."): value for key, value in values.items() if key.startswith(f"{arch}.")
    }
    _check_numbers(arch, said, raw, pooled="tokenizer.chat_template" not in values)
    _check_heads(arch, said, raw)
    tokens = sound_vocabulary.check(values, raw)
    _check_tensors(arch, said, tensors, tokens)
    if arch in ENCODERS:
        sound_encoder.check(arch, values, said, tensors)
    if "tokenizer.chat_template" in values:
        check_template(values["tokenizer.chat_template"])


def _kind(raw: Raw, key: str, *kinds: int) -> None:
    if raw.kinds.get(key, kinds) != kinds:
        raise ValueError(f"{key} has the type {raw.kinds[key]}, not {kinds}")


def _check_numbers(arch: str, said: dict[str, Any], raw: Raw, *, pooled: bool) -> None:
    more = _NEEDED_HERE if arch in ARCHITECTURES else sound_encoder.NEEDED if arch in ENCODERS else ()
    for name in (*_NEEDED, *more):
        if f"{arch}.{name}" not in raw.kinds:
            raise ValueError(f"no {arch}.{name}")
    for name, value in said.items():
        if isinstance(value, int) and not -(1 << 31) <= value < 1 << 32:
            raise ValueError(f"{arch}.{name} is {value}")
    for name, (least, most) in _COUNTS.items():
        key = f"{arch}.{name}"
        if name in _PER_LAYER and key in raw.arrays and arch not in _KNOWN:
            items = raw.arrays[key]
            if raw.kinds[key] not in ((ARRAY, UINT32), (ARRAY, INT32)) or len(items) != said["block_count"]:
                raise ValueError(f"{key} has {len(items)} items of type {raw.kinds[key][1]}")
            if items.min() < 0 or items.max() > most:
                raise ValueError(f"{key} goes from {items.min()} to {items.max()}")
            continue
        if name == "pooling_type" and pooled:
            most = _POOLINGS  # an embedding model; nothing else is done with a file without a template
        _kind(raw, key, UINT32)
        if not least <= said.get(name, least) <= most:
            raise ValueError(f"{key} is {said[name]}")
    if f"{arch}.{_WINDOWS}" in raw.kinds:
        _check_windows(said.get(_WINDOWS), raw.arrays.get(f"{arch}.{_WINDOWS}"), said["block_count"])
    for name, (low, high) in _FLOATS.items():
        _kind(raw, f"{arch}.{name}", FLOAT32)
        if not low <= said.get(name, low) <= high:
            raise ValueError(f"{arch}.{name} is {said[name]}")
    _kind(raw, f"{arch}.attention.causal", BOOL)
    writes = arch not in ENCODERS
    if said.get("attention.causal", True) is not writes:
        raise ValueError("it is no model that writes text" if writes else f"{arch} writes no text")
    # We read as many numbers of a vector as the model is wide.
    if said.get("embedding_length_out", said["embedding_length"]) != said["embedding_length"]:
        raise ValueError(f"{arch}.embedding_length_out is not its embedding_length")
    _kind(raw, f"{arch}.rope.scaling.type", STRING)
    if said.get("rope.scaling.type", "none") not in _ROPE_SCALING:
        raise ValueError(f"{arch}.rope.scaling.type is unknown")


def _check_windows(every: object, layers: Any, blocks: int) -> None:
    """Every n-th layer looks at all tokens, or one flag for each layer: some layer must have a window."""
    if layers is None:
        good = type(every) is int and every != 1
    else:
        good = (
            isinstance(layers, np.ndarray) and len(layers) == blocks and set(layers) <= {0, 1} and any(layers)
        )
    if not good:
        raise ValueError("no layer has a window")


def _check_heads(arch: str, said: dict[str, Any], raw: Raw) -> None:
    """Heads and experts must divide as llama.cpp divides them."""
    width, heads = said["embedding_length"], said.get("attention.head_count")
    if heads is not None:
        shared = said.get("attention.head_count_kv", heads)
        if heads % shared:
            raise ValueError(f"{heads} heads cannot share {shared} key-value heads")
        if "attention.key_length" not in said and width % heads:
            raise ValueError(f"{heads} heads do not divide {width}")
    if heads is None and f"{arch}.attention.head_count" in raw.arrays:
        heads = int(raw.arrays[f"{arch}.attention.head_count"].max())
    key = said.get("attention.key_length", width // heads if heads else 0)
    for end in ("", "_swa"):  # by no dimension, rope turns without end; by too many, it aborts
        key = said.get(f"attention.key_length{end}", key)
        turned = said.get(f"rope.dimension_count{end}")
        if turned is not None and (turned % 2 or not 0 < turned <= (key or turned)):
            raise ValueError(f"rope turns {turned} of {key}")
    if arch in ARCHITECTURES:
        _check_head_length(arch, said)
    _check_experts(arch, said, raw)


def _check_experts(arch: str, said: dict[str, Any], raw: Raw) -> None:
    experts, used = said.get("expert_count", 0), said.get("expert_used_count", 0)
    groups, chosen = said.get("expert_group_count", 0), said.get("expert_group_used_count", 0)
    if used > experts or (experts and not used and f"{arch}.expert_used_count" not in raw.arrays):
        raise ValueError(f"{used} of {experts} experts")
    if groups and (groups >= experts or experts % groups or (groups > 1 and not 0 < chosen < groups)):
        raise ValueError(f"{chosen} of {groups} groups of {experts} experts")
    if said.get("nextn_predict_layers", 0) >= said["block_count"]:
        raise ValueError("more layers for prediction than there are")


def _check_head_length(arch: str, said: dict[str, Any]) -> None:
    width, heads = said["embedding_length"], said["attention.head_count"]
    key = said.get("attention.key_length", width // heads)
    turned = said.get("rope.dimension_count", key)
    if said.get("attention.value_length", width // heads) != key:
        raise ValueError("keys and values of different length")
    for name, wanted in (("key_length", key), ("value_length", key)):
        if said.get(f"attention.{name}_swa", wanted) != wanted:
            raise ValueError("heads of different length")
    if turned % 2 or (arch != "phi3" and turned != key):
        raise ValueError(f"rope turns {turned} of {key}")
    if said.get("rope.dimension_count_swa", turned) != turned:
        raise ValueError("rope turns layers differently")
    if arch in ("qwen2", "phi3") and heads * key != width:
        raise ValueError(f"{heads} heads of {key} are not {width}")


def _check_tensors(arch: str, said: dict[str, Any], tensors: Tensors, tokens: int) -> None:
    blocks: dict[int, set[str]] = {}
    known = _known_names(arch)
    for name, (kind, shape) in tensors.items():
        if found := _BLOCK.match(name):
            blocks.setdefault(int(found[1]), set()).add(name.removeprefix(found[0]).removesuffix(".weight"))
            if int(found[1]) >= said["block_count"]:
                raise ValueError(f"tensor {name}, but {said['block_count']} blocks")
        stem, _, end = _BLOCK.sub("blk.{bid}.", name).rpartition(".")
        if known and (stem not in known or end not in _ENDS):
            raise ValueError(f"tensor {name} belongs to no {arch} model")
        if kind in _NO_WEIGHTS:
            raise ValueError(f"tensor {name} has the type {kind}")
        if len(shape) == 1 and kind != "F32":  # llama.cpp adds and multiplies by no other
            raise ValueError(f"tensor {name} has one dimension and the type {kind}")
    if known and len(blocks) != said["block_count"]:
        raise ValueError(f"tensors of {len(blocks)} blocks, not {said['block_count']}")
    for number, held in blocks.items():  # optional to llama.cpp, but it crashes without
        if known and not (held >= {"attn_qkv"} or held >= {"attn_q", "attn_k", "attn_v"}):
            raise ValueError(f"block {number} has no attention")
    _, rows = tensors.get("token_embd.weight", ("", ()))
    if rows != (said["embedding_length"], tokens):
        raise ValueError(f"token_embd.weight is {list(rows)}, for {tokens} tokens")


def _known_names(arch: str) -> set[str]:
    """Names of an architecture's tensors, from gguf's tables; empty for those that are not known here."""
    if arch not in _KNOWN:
        return set()
    made = next(one for one in MODEL_ARCH if MODEL_ARCH_NAMES[one] == arch)
    return {*_ROPE_FACTORS, *(TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[made])}


def _check_adapter(arch: str, values: dict[str, Any], raw: Raw, tensors: Tensors) -> None:
    """A LoRA adapter: of each matrix, A [in, rank] and B [rank, out] in GGUF's order of dimensions."""
    if values.get("adapter.type") != "lora":
        raise ValueError("its adapter.type is not lora")
    _kind(raw, "adapter.lora.alpha", FLOAT32)
    if not 0 < values.get("adapter.lora.alpha", 0) <= 1e6:
        raise ValueError("it has no usable adapter.lora.alpha")
    if "adapter.alora.invocation_tokens" in raw.kinds:
        raise ValueError("it is an adapter that starts on certain tokens")
    if not tensors or len(tensors) % 2:
        raise ValueError(f"it has {len(tensors)} tensors, which are no pairs")
    known = _known_names(arch)
    for name, (kind, shape) in tensors.items():
        stem, _, part = name.rpartition(".")
        other = tensors.get(f"{stem}.{'lora_b' if part == 'lora_a' else 'lora_a'}")
        if part not in ("lora_a", "lora_b") or other is None or not stem.endswith(".weight"):
            raise ValueError(f"tensor {name} is no half of a pair")
        if known and _BLOCK.sub("blk.{bid}.", stem).removesuffix(".weight") not in known:
            raise ValueError(f"tensor {name} belongs to no {arch} model")
        flipped = stem.startswith("token_embd.")
        rank = shape[0] if part == "lora_b" or flipped else shape[-1]
        theirs = other[1][-1] if part == "lora_b" and not flipped else other[1][0]
        if kind not in _PLAIN or len(shape) != 2 or rank != theirs or rank > _LARGEST_RANK:
            raise ValueError(f"tensor {name} is {kind} {list(shape)}")
