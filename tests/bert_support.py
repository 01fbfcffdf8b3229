# ruff: noqa: RUF001
"""A small random BERT: as transformers has it, and as a GGUF in the way of llama.cpp's converter."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, PoolingType, TokenType, get_tensor_name_map

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH, LAYERS, CONTEXT = 64, 2, 512
_WORDS = """the a bed beds ward knee pain leave days of year visitors children come from to fever cough weak
free dose give hours portal heart rate blood after before not no yes and or is are in on at for with"""
_ENDS = "s ing ed er ly al ion ment ness ful able 's ä é ö ü ß ж я ος й"
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789", *"äöüßéèçñøœλοςδσжлубяйт", *"한국", *"あいのไทยन"]
_ALONE = [
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    *"«»¿¡„“”‚‘’–—…。、！？「」·§¶",
    *"医院病人是的中文漢字痛",
    *"🙂🏥€°µ²½",
]
_CAPITALS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜÉÇÑ", "The", "Ward", "MRI", "Über", "É"]


def vocabulary(*, cased: bool) -> list[str]:
    """Some hundred tokens: words, letters, signs, accents, Chinese, and what goes on with "##"."""
    begins = [*_WORDS.split(), *_LETTERS, *_ALONE, *(_CAPITALS if cased else ())]
    goes_on = [*_ENDS.split(), *_LETTERS, "🙂", *(_CAPITALS[:10] if cased else ())]
    return list(dict.fromkeys([*SPECIALS, *begins, *("##" + part for part in goes_on)]))


def save(folder: Path, *, cased: bool = False, nomic: bool = False, context: int = CONTEXT) -> Path:
    """The checkpoint with its tokenizer, for transformers."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = vocabulary(cased=cased)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=not cased)
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": context,
        "type_vocab_size": 2,
    }
    torch.manual_seed(7)
    if nomic:
        from transformers import NomicBertConfig, NomicBertModel

        model: Any = NomicBertModel(NomicBertConfig(**shape), add_pooling_layer=False)
    else:
        model = BertModel(BertConfig(**shape), add_pooling_layer=False)
    with torch.no_grad():
        for name, values in model.named_parameters():  # else every bias is 0 and every norm 1: no test
            values += torch.randn_like(values) * (0.2 if "LayerNorm" in name or "bias" in name else 0.05)
    model.eval().save_pretrained(folder)
    return folder


def write(
    checkpoint: Path,
    target: Path,
    *,
    cased: bool = False,
    nomic: bool = False,
    pooling: PoolingType = PoolingType.MEAN,
    context: int = CONTEXT,
) -> Path:
    """The GGUF of `save`'s checkpoint, as conversion/bert.py of llama.cpp writes it."""
    from safetensors.numpy import load_file

    kind = MODEL_ARCH.NOMIC_BERT if nomic else MODEL_ARCH.BERT
    words, names = vocabulary(cased=cased), get_tensor_name_map(kind, LAYERS)
    writer = GGUFWriter(target, MODEL_ARCH_NAMES[kind])
    add_shape(writer, pooling, context)
    if nomic:
        writer.add_rope_freq_base(1000.0)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([phantom(word) for word in words])
    writer.add_token_types([TokenType.CONTROL if word in SPECIALS else TokenType.NORMAL for word in words])
    if cased:  # written since 2026, and the default of llama.cpp is lower case
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", False)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    for name, values in load_file(checkpoint / "model.safetensors").items():
        if "position_ids" not in name:
            found = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found, name
            writer.add_tensor(found, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def add_shape(writer: GGUFWriter, pooling: PoolingType, context: int = CONTEXT) -> None:
    """What a BERT's header says of its layers."""
    writer.add_name("tiny bert")
    writer.add_file_type(0)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)


def phantom(word: str) -> str:
    """A token as llama.cpp has it: marked where a word begins, and not where it goes on."""
    if word in SPECIALS:
        return word
    return word[2:] if word.startswith("##") else "▁" + word


@cache
def theirs(checkpoint: Path) -> tuple[Any, Any]:
    """Model and tokenizer in transformers."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(checkpoint, add_pooling_layer=False).eval()
    return model, AutoTokenizer.from_pretrained(checkpoint)


def their_vector(checkpoint: Path, text: str | list[int], pooling: PoolingType) -> np.ndarray:
    """The pooled last hidden state of a text or of tokens, by transformers."""
    import torch

    model, tokenizer = theirs(checkpoint)
    ids = tokenizer(text)["input_ids"] if isinstance(text, str) else text
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0]
    found: np.ndarray = (states.mean(0) if pooling == PoolingType.MEAN else states[0]).numpy()
    return found
