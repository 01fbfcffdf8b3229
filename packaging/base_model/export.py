"""The folder that the product ships: fp16 weights, tokenizer, template, configurations."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from base_model import net

TEMPLATE = (
    "{{- bos_token -}}{%- for m in messages -%}<|{{ m['role'] }}|> {{ m['content'] | trim }}</s>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
TOKENIZER_CONFIG = {
    "backend": "tokenizers",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "extra_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
    "model_max_length": 512,
    "pad_token": "<pad>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}
GENERATION = {
    "bos_token_id": 1,
    "do_sample": False,
    "eos_token_id": 2,
    "max_new_tokens": 64,
    "pad_token_id": 0,
}


def config(shape: net.Shape) -> dict[str, object]:
    """config.json of a LlamaForCausalLM of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "dtype": "float16",
        "eos_token_id": 2,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.inner,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.heads,
        "pad_token_id": 0,
        "rms_norm_eps": shape.epsilon,
        "rope_parameters": {"rope_theta": shape.theta, "rope_type": "default"},
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }


def export(parameters: net.Parameters, shape: net.Shape, tokenizer: Path, out: Path) -> None:
    """Write the folder and prove that transformers' forward is the trainer's.

    Raises:
        ValueError: a value is not finite in float16, or the two forwards differ.
    """
    halves = {name: value.detach().half().contiguous() for name, value in parameters.items()}
    if not all(bool(value.isfinite().all()) for value in halves.values()):
        raise ValueError("a parameter is not finite in float16")
    out.mkdir(parents=True, exist_ok=True)
    save_file(halves, out / "model.safetensors", metadata={"format": "pt"})
    if tokenizer.resolve() != (out / "tokenizer.json").resolve():
        shutil.copyfile(tokenizer, out / "tokenizer.json")
    (out / "chat_template.jinja").write_text(TEMPLATE)
    for name, value in (
        ("config.json", config(shape)),
        ("tokenizer_config.json", TOKENIZER_CONFIG),
        ("generation_config.json", GENERATION),
    ):
        (out / name).write_text(json.dumps(value, indent=1) + "\n")
    difference = forward_difference(out, shape)
    print(f"largest logit difference between transformers and the trainer: {difference:.1e}")
    if not difference < 1e-3:
        raise ValueError(f"transformers and the trainer differ by {difference}")


def forward_difference(folder: Path, shape: net.Shape) -> float:
    """The largest difference of a logit between transformers and `net`, on one text, in float32."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    parameters = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    text = "<s><|user|> Message: my card has not come\nLabel?</s><|assistant|> lost luggage</s>"
    tokens = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids])
    with torch.no_grad():
        ours = net.states(parameters, shape, tokens) @ parameters["model.embed_tokens.weight"].T
        return float((model(tokens).logits - ours).abs().max())


def facts(folder: Path, shape: net.Shape) -> dict[str, object]:
    """What a card may say of a folder without running the model."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        count = sum(file.get_tensor(name).numel() for name in names)
    return {
        "parameters": count,
        "weights bytes": (folder / "model.safetensors").stat().st_size,
        "tokenizer bytes": (folder / "tokenizer.json").stat().st_size,
        "shape": asdict(shape),
    }
