"""What a tokenizer does to text before its vocabulary sees it and llama.cpp leaves out.

The converter records it in the file: cloister.normalizer (NFC) and cloister.space_prefix (first: a
space before a text that begins without one, each: after every special token too). For a tokenizer of
BERT it follows from the file's own keys (wordpiece.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from appliance.models.wordpiece import words

_SPACES = (" ", "▁")


def pattern_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Matches each of `texts`, the longest where several begin at one place; None for no texts."""
    ordered = sorted((text for text in texts if text), key=len, reverse=True)
    return re.compile("|".join(re.escape(text) for text in ordered)) if ordered else None


def reword(
    text: str,
    *,
    normalizer: str | None,
    space: str | None,
    specials: re.Pattern[str] | None = None,
    begins: bool = True,
) -> str:
    """`text` as the vocabulary must see it.

    `specials` matches what is read as a special token; with `begins` false, `text` continues another.
    """
    if normalizer == "NFC":
        text = unicodedata.normalize("NFC", text)
    elif normalizer and normalizer.startswith("BERT"):
        text = words(text, lower="lower" in normalizer, strip="strip" in normalizer)
    if not space:
        return text
    found, at, wanted = [], 0, begins
    for match in specials.finditer(text) if specials else ():
        found += [_spaced(text[at : match.start()], wanted), match[0]]
        at, wanted = match.end(), space == "each"
    return "".join([*found, _spaced(text[at:], wanted)])


def _spaced(text: str, wanted: bool) -> str:
    return " " + text if wanted and text and not text.startswith(_SPACES) else text
