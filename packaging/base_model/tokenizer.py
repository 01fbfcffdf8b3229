"""Train a tokenizer on the corpus and compare it with the one that the recipe takes as an input.

    PYTHONPATH=packaging python -m base_model.tokenizer CORPUS OUT.json

The shipped tokenizer was trained on an earlier mix of the same sources and is carried over as a
fixed file, because labels elsewhere are chosen to be single tokens of it. Pass OUT.json to the
recipe with `--tokenizer` to build a base of its own vocabulary.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from base_model import forms
from base_model.__main__ import SHIPPED
from base_model.forms import Document
from base_model.pretrain import Settings

SPECIAL = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")


def train(documents: list[Document], size: int = 4096) -> Tokenizer:
    """A byte-level BPE of `size` entries with the GPT-2 split; ids 0 to 5 are SPECIAL."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ("".join(text for text, _ in document) for document in documents)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main() -> None:
    """Train, write, compare."""
    parser = argparse.ArgumentParser(prog="base_model.tokenizer", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    ours = train(forms.build(chosen.corpus, seed=Settings.seed).train)
    ours.save(str(chosen.out))
    shipped = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    common = ours.get_vocab().keys() & shipped.get_vocab().keys()
    same = sum(ours.get_vocab()[token] == shipped.get_vocab()[token] for token in common)
    print(f"{ours.get_vocab_size()} entries; {len(common)} also in the shipped one, {same} with the same id")


if __name__ == "__main__":
    main()
