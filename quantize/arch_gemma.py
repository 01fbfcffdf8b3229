"""Gemma 2 and Gemma 3 (text).

Norms multiply by 1 + weight, which llama.cpp has in the file (`shift`). Some layers see only a
sliding window; which ones stands in the file as one flag a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantize.layout import (
    Config,
    Plan,
    Sizes,
    Value,
    common,
    need,
    norms,
    read_sizes,
    real,
    split_attention,
    split_mlp,
    tensors,
    unlike,
    whole,
)
from quantize.rope import read_rope, rotated, scaled

_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_SLIDING, _FULL = "sliding_attention", "full_attention"
_PATTERN = "attention.sliding_window_pattern"


def gemma2(config: Config) -> Plan:
    """Gemma 2: attention and logits are capped, every second layer slides, output is the embedding."""
    sizes = read_sizes(config)
    _check(config, sizes, largest=46)
    need(config, "tie_word_embeddings", True)
    slides = _slides(config, sizes, 2)
    keys = common(config, sizes, read_rope(config, sizes.head, "linear").keys)
    keys |= _window(config, slides) if any(slides) else {_PATTERN: slides}
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if not config[key]:
            raise unlike(key, config[key])
        keys[key] = real(key, config[key])
    parts = [*norms(_NORMS, sizes.width), *split_attention(sizes), *split_mlp(sizes)]
    return Plan(
        arch="gemma2", hyperparameters=keys, tensors=tensors(sizes, parts, tied=True, shift=1.0), tied=True
    )


def gemma3(config: Config) -> Plan:
    """Gemma 3, text only: q and k are normed, sliding layers have a rope of their own."""
    sizes = read_sizes(config)
    _check(config, sizes, largest=62)
    need(config, "attn_logit_softcapping", None)
    slides = _slides(config, sizes, config.get("sliding_window_pattern", 6))
    full, sliding = _ropes(config)
    keys = common(config, sizes, scaled(full, config, sizes.head, "linear").keys)
    if any(slides):
        base = scaled(sliding, config, sizes.head).keys["rope.freq_base"]
        keys |= _window(config, slides) | {"rope.freq_base_swa": base}
    if config["final_logit_softcapping"]:
        keys["final_logit_softcapping"] = real("final_logit_softcapping", config["final_logit_softcapping"])
    tied = bool(config["tie_word_embeddings"])
    parts = [
        *norms(_NORMS, sizes.width),
        *split_attention(sizes),
        *norms(_HEAD_NORMS, sizes.head),
        *split_mlp(sizes),
    ]
    return Plan(
        arch="gemma3", hyperparameters=keys, tensors=tensors(sizes, parts, tied=tied, shift=1.0), tied=tied
    )


def _check(config: Config, sizes: Sizes, largest: int) -> None:
    """Refuse what llama.cpp computes otherwise.

    It divides the scores by the root of the head's size, in the model of `largest` layers by that of
    width / heads.
    """
    need(config, "hidden_activation", "gelu_pytorch_tanh")
    need(config, "attention_bias", False)
    need(config, "use_bidirectional_attention", None, False)
    need(
        config, "query_pre_attn_scalar", sizes.width // sizes.heads if sizes.layers == largest else sizes.head
    )
    if rotated(config) != 1.0:
        raise unlike("partial_rotary_factor", rotated(config))


def _slides(config: Config, sizes: Sizes, every: int) -> list[bool]:
    """Which layers see only the window: as config.json says, or all but each `every`th."""
    kinds = config.get("layer_types")
    if kinds is None:
        return [(layer + 1) % every != 0 for layer in range(sizes.layers)]
    if len(kinds) != sizes.layers or not set(kinds) <= {_SLIDING, _FULL}:
        raise unlike("layer_types", kinds)
    return [kind == _SLIDING for kind in kinds]


def _window(config: Config, slides: list[bool]) -> dict[str, Value]:
    return {"attention.sliding_window": whole(config, "sliding_window"), _PATTERN: slides}


def _ropes(config: Config) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Rope of full and of sliding layers, as transformers' Gemma3TextConfig puts them together."""
    both = config.get("rope_parameters") or {}
    full = {**(both.get(_FULL) or {}), **(config.get("rope_scaling") or {})}
    sliding = dict(both.get(_SLIDING) or {})
    full.setdefault("rope_theta", config["rope_theta"])
    sliding.setdefault("rope_theta", config["rope_local_base_freq"])
    return full, sliding
