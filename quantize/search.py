"""Finds llama.cpp's name for a way to split text that the table does not know, by trying them all.

One vocabulary-only file per name; a name fits when the token ids of all proof texts, and of the text of
every token, are those of transformers. Names are tried in a child: one that crashes it is no fit.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from appliance.core.errors import EngineFailed
from appliance.models.llama import LlamaFile
from quantize import worker
from quantize.texts import MESSAGES, NASTY, PASSAGES
from quantize.theirs import fingerprint, spell
from quantize.vocabulary import Vocabulary, refused, write_vocabulary

_PLACE = "to be found"
_found: dict[str, tuple[list[str], str, str]] = {}  # both drafts of a model ask
# name -> (whole words skip the merges, spaces are cleaned up in decoding), as llama_vocab::impl::load
# sets them. One name for each behaviour, best known first. Left out: names that do not take byte-level
# tokens and abort the process (whitespace, gemma4, sarvam-moe), and those of encoders.
NAMES: dict[str, tuple[bool, bool]] = {
    "gpt-2": (False, True),
    "trillion": (False, False),
    "smollm": (False, False),
    "starcoder": (False, True),
    "llama-bpe": (True, True),
    "smaug-bpe": (False, True),
    "qwen2": (False, False),
    "stablelm2": (False, True),
    "qwen35": (False, False),
    "gpt-4o": (False, False),
    "granite-embed-multi-97m": (True, False),
    "tekken": (True, False),
    "deepseek-llm": (False, False),
    "deepseek-coder": (False, False),
    "deepseek-v3": (False, False),
    "falcon": (False, True),
    "glm4": (True, True),
    "chameleon": (False, False),
    "poro-chat": (False, False),
    "bloom": (False, True),
    "viking": (False, False),
    "jais-2": (False, True),
    "exaone-moe": (False, True),
    "tiny_aya": (False, False),
    "superbpe": (False, False),
    "bailingmoe": (False, False),
    "seed-coder": (False, False),
    "youtu": (True, False),
    "ufakzeka": (False, False),
    "afmoe": (False, False),
    "laguna": (False, False),
    "minicpm5": (True, True),
    "spark2_5": (False, False),
    "kimi-k2": (False, False),
    "default": (False, True),
}


def search(folder: Path, vocabulary: Vocabulary, *, whole_words: bool, cleans: bool) -> str:
    """The name under which llama.cpp splits text as the tokenizer in `folder` does.

    `vocabulary` is what would be written but for its `pre`. Of several names, one whose flags are
    `whole_words` and `cleans` is taken.

    Raises:
        ModelRejected: none fits.
        EngineFailed: transformers does not open the tokenizer.
    """
    key = fingerprint(folder)
    if key not in _found:
        _found[key] = _fits(folder, vocabulary)
    fits, nearest, best = _found[key]
    if not fits:
        raise refused(
            f"splits text in a way that llama.cpp has no name for (the nearest, {nearest}, agrees on {best})"
        )
    return min(fits, key=lambda name: (NAMES[name][0] != whole_words, NAMES[name][1] != cleans))


def _fits(folder: Path, vocabulary: Vocabulary) -> tuple[list[str], str, str]:
    """The names that fit, the nearest one, and on how many texts that one agrees."""
    strings = list(dict.fromkeys([*NASTY, *MESSAGES, *PASSAGES]))
    with TemporaryDirectory(prefix="cloister-") as made:
        work = Path(made)
        write_vocabulary(work / "draft.gguf", replace(vocabulary, pre=_PLACE))
        wanted = str(work / "wanted.json")
        doing = "Tokenizing with transformers"
        total = worker.run(
            spell, doing=doing, writes=[work], folder=str(folder), strings=strings, target=wanted
        )
        equal = _try(work, len(strings), total)
    nearest = max(equal, key=lambda name: equal[name])
    fits = [name for name in NAMES if equal.get(name) == total]
    return fits, nearest, f"{min(max(equal[nearest], 0), len(strings))} of {len(strings)} texts"


def _try(work: Path, first: int, total: int) -> dict[str, int]:
    """Name -> number of equal texts, -1 for those on which llama.cpp crashes or hangs."""
    equal: dict[str, int] = {}
    while left := [name for name in NAMES if name not in equal]:
        report = work / "report.txt"
        report.write_text("")
        try:
            worker.run(
                try_names,
                doing="Looking for the pre-tokenizer",
                timeout=60 + total / 500,
                writes=[work],
                draft=str(work / "draft.gguf"),
                wanted=str(work / "wanted.json"),
                first=first,
                names=left,
                report=str(report),
            )
        except EngineFailed:
            done = len(report.read_text().splitlines())
            equal[left[min(done, len(left) - 1)]] = -1
        equal |= {name: int(count) for name, count in map(str.split, report.read_text().splitlines())}
    return equal


def try_names(draft: str, wanted: str, first: int, names: list[str], report: str) -> None:
    """Count, for each name, the texts with equal ids; a line each to `report` as soon as it is known.

    The texts after the `first` are tried only where those are equal.
    """
    told = json.loads(Path(wanted).read_bytes())
    pairs = list(zip(told["strings"], told["ids"], strict=True))
    file = Path(draft).with_name("try.gguf")
    for name in names:
        file.write_bytes(with_name(Path(draft).read_bytes(), name))
        with LlamaFile(file, vocab_only=True) as llama:
            equal = sum(llama.tokenize(text, special=False) == ids for text, ids in pairs[:first])
            if equal == first:
                equal += sum(llama.tokenize(text, special=False) == ids for text, ids in pairs[first:])
        with Path(report).open("a") as lines:
            lines.write(f"{name} {equal}\n")


def with_name(content: bytes, name: str) -> bytes:
    """The bytes of a vocabulary-only file, its pre-tokenizer's name replaced."""
    return content.replace(_string(_PLACE), _string(name), 1)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
