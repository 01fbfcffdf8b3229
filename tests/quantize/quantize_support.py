"""Tiny models made here: random weights, real structure, tokenizers trained on the proof texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantize.arch import plan
from quantize.convert import convert
from quantize.layout import Plan
from quantize.limits import parity_limit
from quantize.lora import open_adapter
from quantize.pretokenizer import LLAMA3, QWEN2, QWEN35
from quantize.proving import special_strings
from quantize.reference import reference
from quantize.source import open_checkpoint
from quantize.texts import CHATS, MESSAGES, NASTY, PASSAGES
from quantize.verify import examine, judge

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
SPECIALS += ["<|endoftext|>"]  # transformers adds it to every Qwen 2 tokenizer that lacks it
CHATTY = [([{"role": "user", "content": text}], " yes") for text in MESSAGES[:4]]


def _split(pattern: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([Split(Regex(pattern), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


def pre_tokenizer(name: str) -> Any:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Punctuation, Sequence

    plain = ByteLevel(add_prefix_space=False)
    made = {
        "gpt-2": lambda: plain,
        "smollm": lambda: Sequence([Digits(individual_digits=True), plain]),
        "llama-bpe": lambda: _split(LLAMA3),
        "smaug-bpe": lambda: _split(LLAMA3),
        "qwen2": lambda: _split(QWEN2),
        "qwen35": lambda: _split(QWEN35),
        "punctuation": lambda: Sequence([Punctuation(), plain]),
        "metaspace": lambda: Metaspace(),
    }
    return made[name]()


def make_tokenizer(folder: Path, pre: str = "gpt-2", size: int = 900, normalizer: str = "") -> int:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja; the vocabulary size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers.pre_tokenizers import ByteLevel

    made = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    made.pre_tokenizer = pre_tokenizer(pre)
    made.decoder = decoders.ByteLevel()
    if normalizer:
        made.normalizer = getattr(normalizers, normalizer)()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([*PASSAGES * 3, *MESSAGES, *NASTY], trainer)
    made.add_tokens([AddedToken("[note]", normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|end|>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return int(made.get_vocab_size())


GEMMA = {
    "head_dim": 24,
    "query_pre_attn_scalar": 24,
    "sliding_window": 40,
    "tie_word_embeddings": True,
    "num_hidden_layers": 3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 24}),
    "qwen2": ("Qwen2", {"pre": "qwen2", "normalizer": "NFC"}),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "phi3": ("Phi3", {}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": (
        "Gemma3",
        {**GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
}


def make_model(
    folder: Path,
    *,
    family: str = "llama",
    shard: str = "1GB",
    dtype: str = "float32",
    **config: Any,
) -> Path:
    """A checkpoint of a tiny random model in `folder`; norms and biases are far from where they start."""
    import torch
    import transformers

    name, own = FAMILIES[family]
    config = {**own, **config}
    words = {key: config.pop(key) for key in ("pre", "normalizer") if key in config}
    vocab = make_tokenizer(folder, **words)
    settings = {
        "vocab_size": vocab + 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 640,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 6,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    made = getattr(transformers, f"{name}TextConfig" if family == "gemma3" else f"{name}Config")
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(made(**{**settings, **config}))
    centre = 0.0 if family.startswith("gemma") else 1.0
    for part, weights in model.named_parameters():
        if "norm" in part or "bias" in part:
            torch.nn.init.normal_(weights, mean=centre * ("norm" in part), std=0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    return folder


def make_adapter(base: Path, folder: Path, *, std: float = 0.1, **config: Any) -> Path:
    """A random LoRA adapter of `base` in peft's format."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**{**settings, **config})
    )
    for name, part in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(part, std=std)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def changed(made: Plan, part: str, **changes: Any) -> Plan:
    """The plan with `changes` to the tensors whose names end with `part`."""
    hit = [tensor.name for tensor in made.tensors if tensor.name.endswith(part)]
    assert hit
    tensors = (replace(tensor, **changes) if tensor.name in hit else tensor for tensor in made.tensors)
    return replace(made, tensors=tuple(tensors))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tokens_of(folder: Path) -> list[str]:
    return [*NASTY, *special_strings(open_checkpoint(folder).tokenizer), *MESSAGES, *PASSAGES]


def references(base: Path, logits: Path, adapter: Path | None = None) -> dict[str, Any]:
    """`reference` with few windows, in this process."""
    return reference(
        str(base),
        str(adapter) if adapter else None,
        tokens_of(base),
        list(CHATS),
        CHATTY,
        list(PASSAGES),
        str(logits),
        int(plan(open_checkpoint(base)).hyperparameters["context_length"]),  # type: ignore[arg-type]
    )


def faults(
    base: Path,
    work: Path,
    kind: str = "F32",
    adapter: Path | None = None,
    file: Path | None = None,
    lora: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Convert `base` and judge it against transformers, all in this process (our own files).

    `file` is judged instead where given, with the LoRA GGUF `lora` on it.
    """
    logits = work / "theirs.npy"
    wanted = references(base, logits, adapter)
    checkpoint = open_checkpoint(base)
    if file is None:
        file = work / f"{kind}.gguf"
        convert(
            checkpoint, file, kind, name="t", adapter=open_adapter(adapter, checkpoint) if adapter else None
        )
    seen = examine(
        str(file),
        tokens_of(base),
        wanted["chats"],
        wanted["ends"],
        wanted["windows"][: wanted["compared"]],
        str(work / "ours.npy"),
        str(lora) if lora else None,
        served=kind == "F16",
    )
    limit = parity_limit(kind, plan(checkpoint).arch)
    return judge(kind, limit, tokens_of(base), wanted, seen, logits, work / "ours.npy")
