"""What a BERT tokenizer does to text before its vocabulary sees it, as words with spaces between them.

After tokenizers' BertNormalizer and BertPreTokenizer (src/normalizers/bert.rs, src/pre_tokenizers/bert.rs).
llama.cpp does most of this itself, but takes the first letter of what a character is made of (a Korean
syllable loses its end) and keeps neither long lower-case forms nor the same letters as punctuation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_LOWER, _STRIP = "tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.normalizer.strip_accents"
_HAN = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
_DROPPED = ("Cc", "Cf", "Co", "Cs")
_CHARACTERS = 1 << 16  # remembered; more than any text in use has


def normalizer_of(values: Mapping[str, Any]) -> str | None:
    """The normalisation that a GGUF's tokenizer needs from us, for `wording.reword`; None for none.

    `values` are the file's key-values, booleans as such or in llama.cpp's words.
    """
    if values.get("tokenizer.ggml.model") != "bert":
        said = values.get("cloister.normalizer")
        return None if said is None else str(said)
    lower = values.get(_LOWER, True) in (True, "true")
    strip = values.get(_STRIP, lower) in (True, "true")
    return " ".join(["BERT", *(["lower"] if lower else []), *(["strip"] if strip else [])])


def words(text: str, *, lower: bool, strip: bool) -> str:
    """`text` in the words that WordPiece cuts into tokens, parted by single spaces.

    Punctuation and Chinese characters are words of their own. `strip` takes the accents away.
    """
    text = "".join(map(_cleaned, text))
    if strip:
        apart = unicodedata.normalize("NFD", text)
        text = "".join(letter for letter in apart if unicodedata.category(letter) != "Mn")
    if lower:  # each letter by itself: a whole word would end its sigma in another letter
        text = "".join(map(str.lower, text))
    return " ".join("".join(map(_parted, text)).split())


@lru_cache(maxsize=_CHARACTERS)
def _cleaned(letter: str) -> str:
    kind, code = unicodedata.category(letter), ord(letter)
    if letter in "\t\n\r" or (letter.isspace() and kind != "Cc"):
        return " "
    if kind in _DROPPED or code == 0xFFFD:
        return ""
    return f" {letter} " if any(first <= code <= last for first, last in _HAN) else letter


@lru_cache(maxsize=_CHARACTERS)
def _parted(letter: str) -> str:
    sign = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return f" {letter} " if sign or unicodedata.category(letter).startswith("P") else letter
