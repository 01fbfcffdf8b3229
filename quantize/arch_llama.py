"""Llama and what is built like it: Mistral, Qwen 2, Qwen 3, Phi-3.

None of these has a sliding window in llama.cpp. Inside its window a model is the same with and
without one, so the window becomes the context.
"""

from __future__ import annotations

from quantize.layout import (
    Config,
    Part,
    Plan,
    Sizes,
    common,
    need,
    norms,
    read_sizes,
    split_attention,
    split_mlp,
    tensors,
    unlike,
    whole,
)
from quantize.rope import Rope, read_rope, rotated

_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def llama(config: Config) -> Plan:
    """Llama 1 to 3, SmolLM2: biases are optional."""
    sizes = read_sizes(config)
    bias = "qkvo" if config["attention_bias"] else ""
    parts = [
        *split_attention(sizes, turned=True, bias=bias),
        *split_mlp(sizes, biased=bool(config["mlp_bias"])),
    ]
    return _plan("llama", config, sizes, parts, _whole_head(config, sizes, "linear", "llama3"))


def mistral(config: Config) -> Plan:
    """Mistral: Llama without biases, inside its window."""
    sizes = read_sizes(config)
    parts = [*split_attention(sizes, turned=True), *split_mlp(sizes)]
    context = _inside(config, sizes, slides=True)
    rope = _whole_head(config, sizes, "linear", "llama3")
    return _plan("llama", config, sizes, parts, rope, context)


def qwen2(config: Config) -> Plan:
    """Qwen 2 and 2.5: q, k and v have biases. llama.cpp takes q to be as wide as the stream."""
    sizes = read_sizes(config)
    _need_square(sizes)
    parts = [*split_attention(sizes, bias="qkv"), *split_mlp(sizes)]
    context = _inside(config, sizes, slides=bool(config["use_sliding_window"]))
    return _plan("qwen2", config, sizes, parts, _whole_head(config, sizes, "linear"), context)


def qwen3(config: Config) -> Plan:
    """Qwen 3: no biases, q and k of each head are normed."""
    need(config, "attention_bias", False)
    sizes = read_sizes(config)
    parts = [*split_attention(sizes), *norms(_HEAD_NORMS, sizes.head), *split_mlp(sizes)]
    context = _inside(config, sizes, slides=bool(config["use_sliding_window"]))
    return _plan("qwen3", config, sizes, parts, _whole_head(config, sizes, "linear"), context)


def phi3(config: Config) -> Plan:
    """Phi-3: q, k, v are one matrix, gate and up another, in llama.cpp as well."""
    sizes = read_sizes(config)
    _need_square(sizes)
    rows = (sizes.heads + 2 * sizes.kv_heads) * sizes.head
    shapes = {
        ("self_attn.qkv_proj", "attn_qkv"): (rows, sizes.width),
        ("self_attn.o_proj", "attn_output"): (sizes.width, sizes.width),
        ("mlp.gate_up_proj", "ffn_up"): (2 * sizes.inner, sizes.width),
        ("mlp.down_proj", "ffn_down"): (sizes.width, sizes.inner),
    }
    parts = [Part(source=theirs, name=ours, shape=shape) for (theirs, ours), shape in shapes.items()]
    turned = int(sizes.head * rotated(config))
    if turned < 2 or turned % 2:
        raise unlike("partial_rotary_factor", rotated(config))
    context = _inside(config, sizes, slides=True)
    return _plan("phi3", config, sizes, parts, read_rope(config, turned), context)


def _plan(arch: str, config: Config, sizes: Sizes, parts: list[Part], rope: Rope, context: int = 0) -> Plan:
    need(config, "hidden_act", "silu")
    tied = bool(config["tie_word_embeddings"])
    return Plan(
        arch=arch,
        hyperparameters=common(config, sizes, rope.keys, context),
        tensors=tensors(sizes, [*norms(_NORMS, sizes.width), *parts], tied=tied),
        tied=tied,
        extra=rope.extra,
    )


def _whole_head(config: Config, sizes: Sizes, *kinds: str) -> Rope:
    if rotated(config) != 1.0:
        raise unlike("partial_rotary_factor", rotated(config))
    return read_rope(config, sizes.head, *kinds)


def _inside(config: Config, sizes: Sizes, *, slides: bool) -> int:
    """The context in which the model is the same without its sliding window."""
    window = whole(config, "sliding_window", sizes.context) if slides else sizes.context
    return min(sizes.context, window)


def _need_square(sizes: Sizes) -> None:
    if sizes.heads * sizes.head != sizes.width:
        raise unlike("head_dim", sizes.head)
