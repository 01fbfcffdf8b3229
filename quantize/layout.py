"""What a GGUF holds besides the tokenizer, and what all supported architectures have in common.

An architecture (arch_llama.py, arch_gemma.py) reads its config.json into `Sizes`, names the parts of
one decoder layer, and adds the hyperparameters of its own. Keys and tensors are those that
llama.cpp's loader reads (src/llama-model.cpp and src/models/<arch>.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appliance.core.errors import ModelRejected

Config = Mapping[str, Any]
Value = int | float | str | list[bool]
_MOST_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, float(np.finfo(np.float32).max)  # what a GGUF's keys hold


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """One tensor of the GGUF. `heads` > 0: rows of each head change from halves to pairs.

    `shift` is added to every weight, in float32.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int = 0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the file holds besides tokenizer and facts; `extra` are small F32 tensors.

    `tied`: the output layer is the embedding, whether or not the checkpoint stores it again.
    """

    arch: str
    hyperparameters: dict[str, Value]
    tensors: tuple[TensorPlan, ...]
    tied: bool
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of weights taken from the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor that every decoder layer has; `biased`: it has a bias of as many rows."""

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0
    biased: bool = False


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a decoder: `width` of the stream, `inner` of the MLP, `head` of one attention head."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocab: int
    context: int


def read_sizes(config: Config) -> Sizes:
    """The sizes in config.json.

    Raises:
        ModelRejected: one is missing or no positive whole number.
    """
    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    layers = whole(config, "num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise unlike("num_hidden_layers", layers)
    return Sizes(
        width=width,
        inner=whole(config, "intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", heads),
        head=whole(config, "head_dim", width // heads),
        vocab=whole(config, "vocab_size"),
        context=whole(config, "max_position_embeddings"),
    )


def split_attention(sizes: Sizes, *, turned: bool = False, bias: str = "") -> list[Part]:
    """The four matrices of attention. `turned`: q and k change from halves to pairs; `bias` names
    those with one, of "qkvo"."""
    queries, keys = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    shapes = {
        "q": (queries, sizes.width),
        "k": (keys, sizes.width),
        "v": (keys, sizes.width),
        "o": (sizes.width, queries),
    }
    heads = {"q": sizes.heads, "k": sizes.kv_heads} if turned else {}
    return [
        Part(
            source=f"self_attn.{letter}_proj",
            name="attn_output" if letter == "o" else f"attn_{letter}",
            shape=shape,
            heads=heads.get(letter, 0),
            biased=letter in bias,
        )
        for letter, shape in shapes.items()
    ]


def split_mlp(sizes: Sizes, *, biased: bool = False) -> list[Part]:
    """The three matrices of a gated MLP."""
    shapes = {
        "gate": (sizes.inner, sizes.width),
        "up": (sizes.inner, sizes.width),
        "down": (sizes.width, sizes.inner),
    }
    return [
        Part(source=f"mlp.{name}_proj", name=f"ffn_{name}", shape=shape, biased=biased)
        for name, shape in shapes.items()
    ]


def norms(names: Mapping[str, str], size: int) -> list[Part]:
    """Norms of `size` weights; `names` is theirs -> ours."""
    return [Part(source=theirs, name=ours, shape=(size,)) for theirs, ours in names.items()]


def tensors(sizes: Sizes, parts: Sequence[Part], *, tied: bool, shift: float = 0.0) -> tuple[TensorPlan, ...]:
    """The tensors of the whole model: embedding, output, and `parts` once for each layer.

    `shift` is added to every norm.
    """
    ends = (sizes.vocab, sizes.width)
    made = [
        TensorPlan(name="token_embd.weight", source="model.embed_tokens.weight", shape=ends),
        TensorPlan(name="output_norm.weight", source="model.norm.weight", shape=ends[1:], shift=shift),
    ]
    if not tied:
        made.append(TensorPlan(name="output.weight", source="lm_head.weight", shape=ends))
    for layer in range(sizes.layers):
        for part in parts:
            for kind in ("weight", "bias") if part.biased else ("weight",):
                made.append(
                    TensorPlan(
                        name=f"blk.{layer}.{part.name}.{kind}",
                        source=f"model.layers.{layer}.{part.source}.{kind}",
                        shape=part.shape if kind == "weight" else part.shape[:1],
                        heads=part.heads,
                        shift=shift if len(part.shape) == 1 else 0.0,
                    )
                )
    return tuple(made)


def common(config: Config, sizes: Sizes, rope: Mapping[str, Value], context: int = 0) -> dict[str, Value]:
    """The hyperparameters that all architectures have, with those of `rope`.

    `context` is in tokens; 0: what config.json says.

    Raises:
        ModelRejected: the norms' epsilon is no number of float32, or the context holds no two tokens.
    """
    context = context or sizes.context
    if context < 2:
        raise unlike("a context", context)  # no next token to compare
    return {
        "context_length": context,
        "embedding_length": sizes.width,
        "block_count": sizes.layers,
        "feed_forward_length": sizes.inner,
        "attention.head_count": sizes.heads,
        "attention.head_count_kv": sizes.kv_heads,
        "attention.key_length": sizes.head,
        "attention.value_length": sizes.head,
        "attention.layer_norm_rms_epsilon": real("rms_norm_eps", config["rms_norm_eps"]),
        **rope,
        "vocab_size": sizes.vocab,
    }


def whole(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number of config.json, at most 2^31 - 1; `default` where it is missing or null.

    Raises:
        ModelRejected: it is none.
    """
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or not 1 <= value <= _LARGEST_INT:
        raise ModelRejected(f"config.json has no usable {key}.", "Copy config.json again from its source.")
    return value


def real(what: str, value: Any) -> float:
    """A setting as a float that float32 can hold; `what` names it in the error.

    Raises:
        ModelRejected: it is too large, or no number.
    """
    number = float(value)
    if not abs(number) <= _LARGEST_FLOAT:
        raise unlike(what, value)
    return number


def need(config: Config, key: str, *allowed: object) -> None:
    """Refuse a setting that llama.cpp computes otherwise.

    Raises:
        ModelRejected: config.json has another value for `key` than those `allowed`.
    """
    if config.get(key) not in allowed:
        raise unlike(key, config.get(key))


def unlike(what: str, value: object) -> ModelRejected:
    """The error for a setting that cannot be carried over."""
    return ModelRejected(
        f"A model with {what} = {value} cannot be converted.", "Use a model with plain settings."
    )
