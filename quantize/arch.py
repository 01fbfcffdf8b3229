"""How each supported architecture becomes GGUF: hyperparameters, names, row orders.

To add one, write a function like those of arch_llama.py and enter it in `ARCHITECTURES`; everything
else of the converter is common to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ModelRejected
from quantize import arch_gemma, arch_llama
from quantize.layout import Config, Plan, unlike
from quantize.source import Checkpoint

_SKIPPED = ("rotary_emb.inv_freq",)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One class of transformers: its model_type, what config.json may leave out, and how it is built."""

    model_type: str
    build: Callable[[Config], Plan]
    defaults: Mapping[str, Any]


_SILU = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
_GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(
        model_type="llama",
        build=arch_llama.llama,
        defaults=_SILU | {"attention_bias": False, "mlp_bias": False},
    ),
    "MistralForCausalLM": Architecture(
        model_type="mistral",
        build=arch_llama.mistral,
        defaults=_SILU | {"num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "Qwen2ForCausalLM": Architecture(
        model_type="qwen2",
        build=arch_llama.qwen2,
        defaults=_SILU | {"num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096},
    ),
    "Qwen3ForCausalLM": Architecture(
        model_type="qwen3",
        build=arch_llama.qwen3,
        defaults=_SILU
        | {
            "num_key_value_heads": 32,
            "head_dim": 128,
            "attention_bias": False,
            "use_sliding_window": False,
            "sliding_window": 4096,
        },
    ),
    "Phi3ForCausalLM": Architecture(
        model_type="phi3", build=arch_llama.phi3, defaults=_SILU | {"rms_norm_eps": 1e-5}
    ),
    "Gemma2ForCausalLM": Architecture(
        model_type="gemma2",
        build=arch_gemma.gemma2,
        defaults=_GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "Gemma3ForCausalLM": Architecture(
        model_type="gemma3_text",
        build=arch_gemma.gemma3,
        defaults=_GEMMA
        | {
            "final_logit_softcapping": None,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
    ),
}


def plan(checkpoint: Checkpoint) -> Plan:
    """How `checkpoint` becomes GGUF; every tensor of it is used, or known to be derived.

    Raises:
        ModelRejected: another architecture, a setting llama.cpp computes otherwise, or tensors
            that are missing, left over or of another shape than the config says.
    """
    name, known = _known(checkpoint.config)
    if checkpoint.config.get("model_type") != known.model_type:  # what transformers goes by
        raise unlike(f"model_type of {name}", checkpoint.config.get("model_type"))
    try:
        made = known.build({**known.defaults, **checkpoint.config})
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as problem:
        raise ModelRejected(
            f"config.json cannot be used ({type(problem).__name__}: {problem}).",
            "Copy config.json again from its source.",
        ) from problem
    _check_tensors(checkpoint, made)
    return made


def is_tied(config: Config) -> bool:
    """Whether the output layer of a supported model is its embedding.

    Raises:
        ModelRejected: another architecture.
    """
    return bool({**_known(config)[1].defaults, **config}["tie_word_embeddings"])


def _known(config: Config) -> tuple[str, Architecture]:
    named = config.get("architectures")
    name = str(named[0] if isinstance(named, list) and named else named)
    if name not in ARCHITECTURES:
        raise ModelRejected(
            f"The architecture {name} cannot be converted.", f"Supported: {', '.join(ARCHITECTURES)}."
        )
    return name, ARCHITECTURES[name]


def _check_tensors(checkpoint: Checkpoint, made: Plan) -> None:
    wanted = {tensor.source: tensor.shape for tensor in made.tensors}
    held = {name: t.shape for name, t in checkpoint.tensors.items() if not name.endswith(_SKIPPED)}
    if made.tied:
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
