"""Random models of real shapes with LoRA of rank 8 on q, k, v and o, and records to train them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder's sizes; `records` of 128 tokens are what one step of a benchmark takes.

    `big` ones are run in bfloat16 on a GPU, the others in float32 on one CPU thread.
    """

    hidden: int
    layers: int
    heads: int
    kv: int
    inter: int
    vocab: int
    records: int = 8
    family: str = "llama"
    tied: bool = True
    big: bool = False


SHAPES = {
    "h256x4": Shape(hidden=256, layers=4, heads=4, kv=4, inter=768, vocab=4096),
    "SmolLM2-135M": Shape(hidden=576, layers=30, heads=9, kv=3, inter=1536, vocab=49152, records=4),
    "SmolLM2 width, 2 layers": Shape(hidden=576, layers=2, heads=9, kv=3, inter=1536, vocab=49152, records=4),
    "Qwen2.5-0.5B": Shape(
        hidden=896, layers=24, heads=14, kv=2, inter=4864, vocab=151936, records=2, family="qwen2"
    ),
    "Llama-1B": Shape(hidden=2048, layers=16, heads=32, kv=8, inter=8192, vocab=128256, big=True),
    "Llama-8B": Shape(
        hidden=4096, layers=32, heads=32, kv=8, inter=14336, vocab=128256, tied=False, big=True
    ),
}
LENGTH = 128


def base_model(shape: Shape, device: str = "cpu") -> Any:
    """A peft model with random weights; B is random too, for with B zero the gradient of A is zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    config = (Qwen2Config if shape.family == "qwen2" else LlamaConfig)(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv,
        intermediate_size=shape.inter,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    torch.manual_seed(0)
    with torch.device(device):
        dense = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if shape.big else torch.float32)
    lora = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(dense, lora)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_B" in name:
                part.normal_(0, 0.02)
    return model.train()


def twin(model: Any) -> Any:
    """A copy with adapters of its own on the same frozen weights."""
    import copy

    frozen = {id(part): part for part in model.parameters() if not part.requires_grad}
    return copy.deepcopy(model, frozen)


def random_records(shape: Shape, labelled: int, count: int = 0) -> list[Any]:
    """`count` (0: the shape's own) records of 128 tokens; the last `labelled` of them are learnt."""
    import numpy as np

    from appliance.models.encoding import Encoded

    draw = np.random.default_rng(0)
    lines = draw.integers(5, shape.vocab, (count or shape.records, LENGTH + 1)).tolist()
    return [Encoded(prompt=tuple(line[:-labelled]), answer=tuple(line[-labelled:])) for line in lines]
