"""Tiny tokenizers of every kind, trained here, and what transformers and llama.cpp make of texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from quantize_support import SPECIALS, TEMPLATE

from appliance.models.llama import LlamaFile
from appliance.models.load import load_tokenizer
from quantize.pretokenizer import DIGITS, PLAIN, PUNCTUATION, WHOLE
from quantize.proving import special_strings
from quantize.source import Checkpoint
from quantize.texts import MESSAGES, NASTY, PASSAGES
from quantize.tokenizer import read_vocabulary
from quantize.verify import judge_tokens, read_tokens
from quantize.vocabulary import write_vocabulary

TEXTS = [*PASSAGES * 3, *MESSAGES, *(text.replace("\0", "") for text in NASTY)]
# For tokenizers over text: without what spells special tokens, which llama.cpp would put together.
PLAIN_TEXTS = [text for text in TEXTS if "<" not in text and "[" not in text]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 6}


def step(part: str) -> Any:
    """One part of a signature (quantize/pretokenizer.py) as the pre-tokenizer it names."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Split

    named = {
        WHOLE: lambda: ByteLevel(add_prefix_space=False),
        PLAIN: lambda: ByteLevel(add_prefix_space=False, use_regex=False),
        DIGITS: lambda: Digits(individual_digits=True),
        PUNCTUATION: lambda: Punctuation("contiguous"),
    }
    return named[part]() if part in named else Split(Regex(part), "isolated")


def bytelevel(parts: tuple[str, ...], whole_words: bool = False, size: int = 4000) -> Any:
    """A trained byte-level BPE tokenizer that splits text as `parts` say."""
    from tokenizers import Tokenizer, decoders, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence

    made = Tokenizer(models.BPE(ignore_merges=whole_words))
    made.pre_tokenizer = Sequence([step(part) for part in parts])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def fallback(kind: str, size: int = 2000) -> Any:
    """A BPE tokenizer with byte fallback, its spaces written as Llama ("first", "always", "prepend") or
    Gemma does ("gemma"), with the merges that transformers makes of a SentencePiece vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.tokenization_utils_base import generate_merges

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    first = ["<unk>", *SPECIALS, *bytes_]
    trained.train_from_iterator(
        PLAIN_TEXTS,
        trainers.BpeTrainer(vocab_size=size, special_tokens=first, show_progress=False, limit_alphabet=120),
    )
    vocab = trained.get_vocab()
    merges = generate_merges(vocab, {text: -float(number) for text, number in vocab.items()}, first)
    made = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    replaced = normalizers.Replace(" ", "▁")
    if kind == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    elif kind == "gemma":
        made.normalizer = replaced
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=kind, split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(["<unk>", *SPECIALS])
    return made


def unigram(*, byte_fallback: bool = False, scheme: str = "first", size: int = 900) -> Any:
    """A trained Unigram tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    made.decoder = decoders.Metaspace("▁", prepend_scheme=scheme, split=False)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<unk>", *SPECIALS, *bytes_], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(PLAIN_TEXTS, trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = [e for e in content["added_tokens"] if not e["content"].startswith("<0x")]
    content["model"]["byte_fallback"] = byte_fallback
    # SentencePiece keeps scores in float32, and so does GGUF.
    content["model"]["vocab"] = [
        [text, float(np.float32(score))] for text, score in content["model"]["vocab"]
    ]
    return Tokenizer.from_str(json.dumps(content))


def save(made: Any, folder: Path, *, bos: bool = True, spare: int = 3, **config: Any) -> Checkpoint:
    """The tokenizer as a folder that transformers opens, and as a checkpoint without weights.

    `bos`: plain encoding begins with it. `spare`: embedding rows beyond the vocabulary.
    """
    from tokenizers.processors import TemplateProcessing

    if bos:
        number = made.token_to_id("<s>")
        made.post_processor = TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", number)])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|end|>"}
    words |= {"pad_token": "<pad>", "clean_up_tokenization_spaces": False, **config}
    if made.token_to_id("<unk>") is not None:
        words["unk_token"] = "<unk>"
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    size = made.get_vocab_size() + spare
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": size}))
    return Checkpoint(
        folder=folder,
        config=CONFIG | {"vocab_size": size},
        generation={},
        tokenizer=json.loads((folder / "tokenizer.json").read_text()),
        tokenizer_config=words,
        chat_template=TEMPLATE,
        tensors={},
    )


def strings_of(checkpoint: Checkpoint) -> list[str]:
    """The proof's strings."""
    return [*NASTY, *special_strings(checkpoint.tokenizer), *MESSAGES, *PASSAGES]


def wanted(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `reference` says of tokens, from transformers, without a model."""
    from quantize.reference import tokens

    return tokens(load_tokenizer(checkpoint.folder), strings_of(checkpoint)) | {
        "ends": [],
        "chats": [],
        "width": checkpoint.config["vocab_size"],
    }


def seen(checkpoint: Checkpoint, file: Path) -> dict[str, Any]:
    """What `examine` says of tokens, from llama.cpp."""
    with LlamaFile(file, vocab_only=True) as llama:
        return read_tokens(llama, strings_of(checkpoint)) | {"ends": []}


def proof(checkpoint: Checkpoint, file: Path, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """Convert the tokenizer (with `changes` to the vocabulary) and judge it: figures and faults."""
    write_vocabulary(file, replace(read_vocabulary(checkpoint), **changes))
    return judge_tokens(strings_of(checkpoint), wanted(checkpoint), seen(checkpoint, file))
