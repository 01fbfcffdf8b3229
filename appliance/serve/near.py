"""Whether two questions surely ask the same: a near match of the cache, off unless a site wants it.

A wrong hit gives a patient the answer to another question, so everything that may carry meaning must be
equal, in its order: numbers, units, signs, names and their capitals, negations, comparatives, tenses,
"from X to Y", also articles ("a little", "the pill", "hepatitis a") and phrases that moved ("before the
operation" can belong to two verbs). What may differ is a closed list: politeness at both ends, short forms
(can't, what's), a few abbreviations, the space before a unit, a number in words before one, the end of a
question, the capital of a usual first word. On top the two texts must be alike as hashed
character runs. English only: a text in another language, with letters beyond ASCII or without spaces finds
nothing here and is left to the exact match.

A similarity alone does not do: a reversed question passes at 0.8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from appliance.serve.hashed import character_pieces, hashed

SIMILAR = 0.5
_FEATURES = 512
_FEWEST_WORDS = 4  # "Is it safe?" depends on too much that is not said
_LONGEST = 600  # characters; two long texts that differ in nothing that matters are rare

_TOKEN = re.compile(
    r"[+-]?\d++(?:[.,:/]\d++)*+(?:(?:st|nd|rd|th)(?![^\W\d_]))?"  # a number, time, date or ordinal
    r"|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*"
    r"|\S"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What tells English from other languages that are written in ASCII: one of the first or two of the second.
_ONLY_ENGLISH = _set(
    "the what where when how why which does could should would without before after because today tomorrow"
)
_MOST_ENGLISH = _set(
    "is are can must who for my your you it with and not there have has from take pay money did"
)
# First words whose capital means nothing. "May", "Will" and "A" can be names.
_OPENERS = _set(
    "what when where how who why which is are was were do does did can could should would must if for in on"
    " at after before during as it my the an tell show explain give there have has no not"
)
_ASKING = _set("what when where how who why which is are was were does did can could should would must")
_PERSONS = _set("i we you they my our the")
_SHORT = {
    "cannot": "can not", "can't": "can not", "won't": "will not", "shan't": "shall not", "ain't": "is not",
    "what's": "what is", "where's": "where is", "when's": "when is", "how's": "how is", "who's": "who is",
    "that's": "that is", "there's": "there is", "it's": "it is", "i'm": "i am", "i've": "i have",
    "i'll": "i will", "you're": "you are", "we're": "we are", "they're": "they are",
}  # fmt: skip
_NOT = {
    f"{word}n't": f"{word} not"
    for word in _set("is are was were do does did has have had should would could must need")
}
_ABBREVIATED = {
    "hrs": "hours", "mins": "minutes", "milligrams": "mg", "milligram": "mg", "appt": "appointment",
    "info": "information", "max": "maximum",
}  # fmt: skip
# Only before one of these is a number in words a number: "no one" is not "no 1".
_UNITS = _set(
    "dose doses tablet tablets pill pills capsule capsules drop drops day days week weeks month months year"
    " years hour hours minute minutes euro euros dollar dollars pound pounds mg mcg ml g kg"
)
_NUMBERS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_HEADS = (
    "good morning", "good evening", "hello there", "hi there", "hello", "hi", "quick question",
    "i have a question", "i would like to know", "i want to know", "can you please tell me",
    "could you please tell me", "can you tell me", "could you tell me", "would you tell me",
    "please tell me", "please", "kindly",
)  # fmt: skip
_TAILS = ("thanks in advance", "many thanks", "thank you", "thanks", "please")


@dataclass(frozen=True, kw_only=True)
class Question:
    """The last message of a request; `frame` stands for all the rest of it, which must be equal."""

    frame: str = field(repr=False)
    text: str = field(repr=False)

    @cached_property
    def meaning(self) -> tuple[str, ...] | None:
        """See `meaning_of`."""
        return meaning_of(self.text)

    @cached_property
    def vector(self) -> NDArray[np.float32]:
        """Hashed character runs."""
        return hashed(character_pieces(self.text.lower()), _FEATURES).astype(np.float32)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return 4 * _FEATURES + 12 * len(self.text)


def meaning_of(text: str) -> tuple[str, ...] | None:
    """What must be equal, in its order; None where no near match may be looked for."""
    if len(text) > _LONGEST or any(c.isalpha() and not c.isascii() and c not in "µμ" for c in text):
        return None
    tokens = [token.replace("\u2019", "'") for token in _TOKEN.findall(text)]
    question = bool(tokens) and tokens[-1] == "?"
    tokens = _without(tokens, _HEADS, _TAILS)
    if tokens and _is_capitalised(tokens[0]) and _is_opener(tokens[0].lower()):
        tokens[0] = tokens[0].lower()
    tokens = _written_out(tokens)
    if not _is_english(tokens):
        return None
    words = _same_words(tokens)
    if sum(word[0].isalnum() for word in words) < _FEWEST_WORDS:
        return None
    asks = question or words[0] in _ASKING or (words[0] == "do" and words[1] in _PERSONS)
    return (*words, "?") if asks else tuple(words)


def _is_english(tokens: list[str]) -> bool:
    return any(token in _ONLY_ENGLISH for token in tokens) or sum(t in _MOST_ENGLISH for t in tokens) > 1


def _is_capitalised(word: str) -> bool:
    """Not WHO or IT, which are names."""
    return word[0].isupper() and word[1:] == word[1:].lower()


def _is_opener(word: str) -> bool:
    return word in _OPENERS or word in _SHORT or word in _NOT or word in _NUMBERS


def _without(tokens: list[str], heads: Sequence[str], tails: Sequence[str]) -> list[str]:
    """Cut polite phrases off both ends, with the punctuation around them."""
    while True:
        while tokens and tokens[-1] in (".", "?", "!"):
            tokens = tokens[:-1]
        low = " ".join(token.lower() for token in tokens) + " "
        head = next((phrase for phrase in heads if low.startswith(phrase + " ")), None)
        tail = next((phrase for phrase in tails if (" " + low).endswith(f" {phrase} ")), None)
        if head is not None:
            tokens = tokens[len(head.split()) :]
            while tokens and tokens[0] in (",", ".", "!", ":"):
                tokens = tokens[1:]
        elif tail is not None:
            tokens = tokens[: -len(tail.split())]
            while tokens and tokens[-1] == ",":
                tokens = tokens[:-1]
        else:
            return tokens


def _written_out(tokens: list[str]) -> list[str]:
    """Without short forms."""
    low = [word.lower() if word == "I" or word.startswith("I'") else word for word in tokens]
    return [part for word in low for part in (_SHORT.get(word) or _NOT.get(word) or word).split()]


def _same_words(words: list[str]) -> list[str]:
    """In one form each: abbreviations, and numbers in words before a unit."""
    words = [_ABBREVIATED.get(word, word) for word in words]
    for at, (number, unit) in enumerate(pairwise(words)):
        if unit in _UNITS:
            words[at] = _NUMBERS.get(number, number)
    return words


class NearIndex:
    """Which key answers a question that means the same."""

    def __init__(self, similar: float = SIMILAR) -> None:
        self._similar = similar
        self._found: dict[tuple[str, tuple[str, ...]], dict[str, NDArray[np.float32]]] = {}

    def add(self, question: Question, key: str) -> None:
        """Enter a question that was answered under `key`."""
        if question.meaning is not None:
            self._found.setdefault((question.frame, question.meaning), {})[key] = question.vector

    def find(self, question: Question) -> str | None:
        """The key of the likest question with the same meaning, or None."""
        if question.meaning is None:
            return None
        known = self._found.get((question.frame, question.meaning), {})
        alike = {key: float(np.dot(vector, question.vector)) for key, vector in known.items()}
        best = max(alike, key=lambda key: alike[key], default=None)
        return best if best is not None and alike[best] >= self._similar else None

    def remove(self, question: Question, key: str) -> None:
        """Forget a key."""
        if question.meaning is None:
            return
        known = self._found.get((question.frame, question.meaning), {})
        known.pop(key, None)
        if not known:
            self._found.pop((question.frame, question.meaning), None)
