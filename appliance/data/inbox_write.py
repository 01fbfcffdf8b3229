"""How a patient of the demo clinic writes: sentences, slots, short forms, slips of the keyboard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from random import Random
from typing import TypeVar

from appliance.data.inbox_talk import DOCTORS, OPENINGS, SHORT, SLOTS

Part = tuple[str, str]  # text, and the kind of personal data it is ("" for none)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hand:
    """Shares of words with slips and of short forms; small letters only or not; what is personal."""

    personal: Mapping[str, str]
    slips: float
    short: float
    small: bool


def letter(rng: Random, hand: Hand, plan: Sequence[str], day: date) -> list[Part]:
    """The sentences of `plan` in order, filled in, with marks and capitals as this hand sets them."""
    said: list[Part] = []
    capital = not hand.small
    for position, sentence in enumerate(plan):
        parts = _say(rng, sentence, hand, day)
        if capital:
            first, kind = parts[0]
            parts[0] = (first[:1].upper() + first[1:], kind)
        if sentence in OPENINGS:
            end = pick(rng, (", ", "\n", " " if hand.small else ". "))
        elif hand.small:
            end = pick(rng, (" ", ", ", ". "))
        else:
            end = "? " if _ASKS.search("".join(words for words, _ in parts)) else ". "
        capital = not hand.small and end != ", "
        last = position == len(plan) - 1
        said += [*parts, (end.rstrip(" ,") if last else end, "")]
    return [_typed(rng, hand, part) for part in said]


_ASKS = re.compile(r"(^|, )(can|could|do|does|is|are|how|what|when|where|which|who|should|has|did|any)\b")


def _say(rng: Random, template: str, hand: Hand, day: date) -> list[Part]:
    """`template` with its alternatives taken and its slots filled."""
    said: list[Part] = []

    def walk(nodes: Sequence[object]) -> None:
        for node in nodes:
            if isinstance(node, str):
                said.append((node, ""))
            elif isinstance(node, _Slot):
                if node.name in SLOTS:
                    walk(_parsed(pick(rng, SLOTS[node.name])))
                else:
                    said.append(_personal(rng, node.name, hand, day))
            else:
                walk(pick(rng, node))  # type: ignore[arg-type]

    walk(_parsed(template))
    return said


def _personal(rng: Random, slot: str, hand: Hand, day: date) -> Part:
    if slot == "ahead":
        return written(rng, day + timedelta(days=2 + int(rng.random() * 40))), "DATE"
    if slot == "back":
        return written(rng, day - timedelta(days=2 + int(rng.random() * 60))), "DATE"
    if slot == "surname" and rng.random() < 0.2:
        return pick(rng, DOCTORS), "NAME"
    return hand.personal[slot], KINDS[slot]


KINDS = {
    "first": "NAME", "name": "NAME", "surname": "NAME", "phone": "PHONE", "mrn": "MRN", "email": "EMAIL",
    "address": "ADDRESS", "dob": "DOB",
}  # fmt: skip


def _typed(rng: Random, hand: Hand, part: Part) -> Part:
    """One part as this patient types it. Personal data is never misspelt: its places stay exact."""
    words, kind = part
    if hand.small:
        words = words.lower()
    if kind or (hand.short == 0 and hand.slips == 0):
        return words, kind
    if hand.short:
        words = _SHORTENED.sub(
            lambda found: SHORT[found[0]] if rng.random() < hand.short else found[0], words
        )
    if hand.slips:
        words = _LONG_WORD.sub(
            lambda found: _slip(rng, found[0]) if rng.random() < hand.slips else found[0], words
        )
    return words, kind


_SHORTENED = re.compile(r"\b(" + "|".join(sorted(SHORT, key=len, reverse=True)) + r")\b")
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")


def _slip(rng: Random, word: str) -> str:
    at = 1 + int(rng.random() * (len(word) - 2))
    kind = rng.random()
    if kind < 0.4:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.75:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at] + word[at:]


def written(rng: Random, day: date, *, year: bool = False) -> str:
    """A date in one of the ways people write it."""
    form = pick(rng, _BIRTHDAYS if year else _DAYS)
    return form.format(m=day.month, d=day.day, y=day.year, name=_MONTHS[day.month - 1])


_BIRTHDAYS = ("{m}/{d}/{y}", "{d} {name} {y}", "{y}-{m:02}-{d:02}")
_DAYS = ("{m}/{d}", "{name} {d}", "{d} {name}")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip


@dataclass(frozen=True)
class _Slot:
    name: str


_MARK = re.compile(r"([\[\]|]|<\w+>)")


@cache
def _parsed(template: str) -> tuple[object, ...]:
    """Texts, slots, and for each `[a|b]` a list of alternatives, each such a tuple again."""
    stack: list[list[list[object]]] = [[[]]]
    for piece in _MARK.split(template):
        if piece == "[":
            stack.append([[]])
        elif piece == "|":
            stack[-1].append([])
        elif piece == "]":
            options = [tuple(option) for option in stack.pop()]
            stack[-1][-1].append(options)
        elif piece.startswith("<"):
            stack[-1][-1].append(_Slot(piece[1:-1]))
        elif piece:
            stack[-1][-1].append(piece)
    return tuple(stack[0][0])


def pick(rng: Random, options: Sequence[T]) -> T:
    """`Random.random` is the one method whose sequence Python promises to keep."""
    return options[int(rng.random() * len(options))]


def weighted(rng: Random, options: Sequence[tuple[T, float]]) -> T:
    """One of `options`, each (value, weight)."""
    left = rng.random() * sum(weight for _, weight in options)
    for option, weight in options:
        left -= weight
        if left < 0:
            return option
    return options[-1][0]
