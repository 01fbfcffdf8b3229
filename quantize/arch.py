"""What each supported architecture looks like in GGUF: hyperparameters, names, row orders.

To add one, write a function like `_llama` and enter it in `ARCHITECTURES`; everything else of the
converter is common to all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appliance.core.errors import ModelRejected
from quantize.source import Checkpoint

_MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_SKIPPED = ("rotary_emb.inv_freq",)


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """One tensor of the GGUF. `heads` > 0: rows of each head change from halves to pairs."""

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the file holds besides tokenizer and facts; `extra` are small F32 tensors."""

    arch: str
    hyperparameters: dict[str, int | float]
    tensors: tuple[TensorPlan, ...]
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of weights taken from the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def plan(checkpoint: Checkpoint) -> Plan:
    """How `checkpoint` becomes GGUF; every tensor of it is used, or known to be derived.

    Raises:
        ModelRejected: another architecture, a setting llama.cpp computes otherwise, or tensors
            that are missing, left over or of another shape than the config says.
    """
    named = checkpoint.config.get("architectures")
    name = named[0] if isinstance(named, list) and named else named
    build = ARCHITECTURES.get(str(name))
    if build is None:
        raise ModelRejected(
            f"The architecture {name} cannot be converted.", f"Supported: {', '.join(ARCHITECTURES)}."
        )
    try:
        made = build(checkpoint)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as problem:
        raise ModelRejected(
            f"config.json cannot be used ({type(problem).__name__}: {problem}).",
            "Copy config.json again from its source.",
        ) from problem
    _check_tensors(checkpoint, made)
    return made


def _check_tensors(checkpoint: Checkpoint, made: Plan) -> None:
    wanted = {tensor.source: tensor.shape for tensor in made.tensors}
    held = {name: t.shape for name, t in checkpoint.tensors.items() if not name.endswith(_SKIPPED)}
    if checkpoint.config.get("tie_word_embeddings", False):
        held.pop("lm_head.weight", None)
    for what, names in (("missing", wanted.keys() - held.keys()), ("unknown", held.keys() - wanted.keys())):
        if names:
            raise ModelRejected(
                f"{len(names)} tensors are {what}, e.g. {min(names)}.",
                "config.json and the weights do not belong together, or the model is a variant.",
            )
    for name, shape in wanted.items():
        if held[name] != shape:
            raise ModelRejected(
                f"Tensor {name} is {list(held[name])}, but config.json says {list(shape)}.",
                "Copy config.json and the weights again from their source.",
            )


def _llama(checkpoint: Checkpoint) -> Plan:
    config = checkpoint.config
    width, inner = _int(config, "hidden_size"), _int(config, "intermediate_size")
    layers, heads = _int(config, "num_hidden_layers"), _int(config, "num_attention_heads")
    kv_heads = _int(config, "num_key_value_heads", heads)
    head = _int(config, "head_dim", width // heads)
    vocab, context = _int(config, "vocab_size"), _int(config, "max_position_embeddings")
    if config.get("hidden_act") != "silu":
        raise _other("hidden_act", config.get("hidden_act"))
    theta, extra = _rope(config, head)
    # Inside its sliding window a model is the same with and without one; llama.cpp has none here.
    context = min(context, _int(config, "sliding_window", context))
    hyperparameters: dict[str, int | float] = {
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.dimension_count": head,
        "rope.freq_base": theta,
        "vocab_size": vocab,
    }
    shapes = {
        "attn_q": (heads * head, width),
        "attn_k": (kv_heads * head, width),
        "attn_v": (kv_heads * head, width),
        "attn_output": (width, heads * head),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    turned = {"attn_q": heads, "attn_k": kv_heads}
    tensors = [
        TensorPlan(name="token_embd.weight", source="model.embed_tokens.weight", shape=(vocab, width)),
        TensorPlan(name="output_norm.weight", source="model.norm.weight", shape=(width,)),
    ]
    if not config.get("tie_word_embeddings", False):
        tensors.append(TensorPlan(name="output.weight", source="lm_head.weight", shape=(vocab, width)))
    for layer in range(layers):
        for theirs, ours in _NORMS.items():
            source = f"model.layers.{layer}.{theirs}.weight"
            tensors.append(TensorPlan(name=f"blk.{layer}.{ours}.weight", source=source, shape=(width,)))
        for theirs, ours in _MATRICES.items():
            part = "attention_bias" if theirs.startswith("self_attn") else "mlp_bias"
            forms = {"weight": shapes[ours], "bias": shapes[ours][:1]}
            for kind in ("weight", "bias") if config.get(part, False) else ("weight",):
                tensors.append(
                    TensorPlan(
                        name=f"blk.{layer}.{ours}.{kind}",
                        source=f"model.layers.{layer}.{theirs}.{kind}",
                        shape=forms[kind],
                        heads=turned.get(ours, 0),
                    )
                )
    return Plan(arch="llama", hyperparameters=hyperparameters, tensors=tuple(tensors), extra=extra)


def _rope(config: dict[str, Any], head: int) -> tuple[float, dict[str, np.ndarray]]:
    """The base frequency, and the factors by which llama3 rope slows the low frequencies.

    transformers 5 keeps all of it in rope_parameters, 4 in rope_theta and rope_scaling.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(scaling.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    partial = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise _other("partial_rotary_factor", partial)
    if kind == "default":
        return theta, {}
    if kind != "llama3":
        raise _other("rope type", kind)
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    slow, old = float(scaling["factor"]), float(scaling["original_max_position_embeddings"])
    waves = 2 * math.pi * theta ** (np.arange(0, head, 2, dtype=np.float64) / head)
    blend = (old / waves - low) / (high - low)
    middle = 1 / ((1 - blend) / slow + blend)
    factors = np.where(waves < old / high, 1.0, np.where(waves > old / low, slow, middle))
    return theta, {"rope_freqs.weight": factors.astype(np.float32)}


def _int(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ModelRejected(f"config.json has no usable {key}.", "Copy config.json again from its source.")
    return value


def _other(what: str, value: object) -> ModelRejected:
    return ModelRejected(
        f"A model with {what} = {value} cannot be converted.", "Use a model with plain settings."
    )


ARCHITECTURES: dict[str, Callable[[Checkpoint], Plan]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
}
