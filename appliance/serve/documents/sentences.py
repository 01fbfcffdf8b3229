"""Where sentences begin and end, by their marks alone; no language is known here."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]  # first character, and the one behind the last

# A full stop may end a sentence; one of a short word, an initial or a number in a list does not.
_STOP = re.compile(
    r"[.!?\u2026]+[\"'\u2019\u201d\u00bb)\]]{0,3}(?=\s)"
    r"|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]?"
    r"|\n[ \t]*\n"
    r"|\n(?=[ \t]*(?:[-*\u2022#|]|\d{1,3}[.)]))"
)
_SHORT = {
    *("dr", "mr", "mrs", "ms", "prof", "st", "sr", "jr", "vs", "no", "nr", "fig", "art", "sec", "vol", "pp"),
    *("e.g", "i.e", "z.b", "d.h", "bzw", "ca", "approx", "ggf", "inkl", "incl", "max", "min", "dept", "al"),
}
_WORD_BEFORE = 12  # characters looked at for a short word


def sentences(text: str) -> list[Span]:
    """The sentences of `text`, without the space between them; paragraphs and list items end one too."""
    return list(_trimmed(text, _cuts(text)))


def _cuts(text: str) -> Iterator[int]:
    for match in _STOP.finditer(text):
        if not (match[0] == "." and _goes_on(text, match.start(), match.end())):
            yield match.end()
    yield len(text)


def _goes_on(text: str, at: int, behind: int) -> bool:
    """Whether a single full stop is part of what stands before it."""
    before = re.split(r"[\s(\[]", text[max(0, at - _WORD_BEFORE) : at])[-1]
    after = text[behind : behind + 4].lstrip()
    if after[:1].islower():
        return True
    line = text.rfind("\n", max(0, at - _WORD_BEFORE), at) + 1
    numbered = before.isdigit() and len(before) <= 3 and text[line:at].strip() == before
    return (
        before.lower() in _SHORT or (len(before) == 1 and before.isalpha() and before.isupper()) or numbered
    )


def _trimmed(text: str, cuts: Iterator[int]) -> Iterator[Span]:
    at = 0
    for cut in cuts:
        part = text[at:cut]
        start = at + len(part) - len(part.lstrip())
        if end := len(part.rstrip()):
            yield start, at + end
        at = cut
