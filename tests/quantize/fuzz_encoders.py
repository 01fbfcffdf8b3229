"""Tiny GGUF files of models that only embed, of each tokenizer they come with, without torch."""

from __future__ import annotations

from pathlib import Path

import bert_support as bert
import numpy as np
from fuzz_support import add_words, finish
from gguf import GGUFWriter, PoolingType, TokenType

KINDS = (("bert", "bert"), ("nomic-bert", "bert"), ("bert", "t5"), ("bert", "gpt2"))


def tiny_encoder(folder: Path, arch: str, words: str) -> Path:
    """A random model of `arch` with a tokenizer of the kind `words` (bert, t5, gpt2)."""
    chance = np.random.default_rng(5)
    file = folder / f"{arch}-{words}.gguf"
    writer = GGUFWriter(file, arch)
    bert.add_shape(writer, PoolingType.MEAN)
    writer.add_token_type_count(2)
    if words == "bert":
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁{letter}" for letter in "abcdehist"), *"abcdehist"]
        count = len(tokens)
        writer.add_tokenizer_model("bert")
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.CONTROL] * 4 + [TokenType.NORMAL] * (count - 4))
        writer.add_bos_token_id(2)
        writer.add_unk_token_id(1)
        writer.add_sep_token_id(3)
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)
    else:
        count = add_words(writer, words, chat=False)
    width, inner = bert.WIDTH, 96
    shapes = {"token_embd.weight": (count, width), "token_types.weight": (2, width)}
    if arch == "bert":
        shapes["position_embd.weight"] = (bert.CONTEXT, width)
    norms = {"token_embd_norm": width}
    for layer in range(bert.LAYERS):
        at = f"blk.{layer}."
        of = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width)}
        if arch == "nomic-bert":
            of = {"attn_qkv": (3 * width, width), "ffn_gate": (inner, width)}
        of |= {"attn_output": (width, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        shapes |= {f"{at}{name}.weight": shape for name, shape in of.items()}
        if arch == "bert":
            shapes |= {f"{at}{name}.bias": shape[:1] for name, shape in of.items()}
        norms |= {f"{at}attn_output_norm": width, f"{at}layer_output_norm": width}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, chance.normal(0, 0.1, shape).astype(np.float32))
    finish(writer)
    return file
