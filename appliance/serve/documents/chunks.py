"""A document cut into passages of about 200 tokens, each a stretch of the text as it stands.

Cuts lie between paragraphs or sentences; a sentence that is longer than a passage is cut between words.
A passage stays on its page and under its heading, and begins with the sentence that ends the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from appliance.serve.documents.sentences import Span, sentences
from appliance.serve.documents.texts import PAGE_BREAK, Page

TOKENS = 200
_OVERLAP = 40  # tokens at most
_WORDS_EACH, _CHARACTERS_EACH = 0.75, 4.0  # of a token, in usual vocabularies
_LONG = int(TOKENS * _CHARACTERS_EACH)  # characters that are more than a passage, whatever they are
_PIECE = 600  # characters of each part of a sentence that is cut


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One passage: characters `start` to `end` of the document's text."""

    page: int | None
    start: int
    end: int
    heading: str = field(repr=False)
    text: str = field(repr=False)


def chunks(pages: Sequence[Page]) -> list[Chunk]:
    """The passages of a document, in order."""
    found: list[Chunk] = []
    at, heading = 0, ""
    for page in pages:
        for start, end, title in _sections(page, heading):
            heading = title
            for first, last in _grouped(page.text, list(_units(page.text, start, end))):
                found.append(
                    Chunk(
                        page=page.number,
                        start=at + first,
                        end=at + last,
                        heading=heading,
                        text=page.text[first:last],
                    )
                )
        at += len(page.text) + len(PAGE_BREAK)
    return found


def tokens(text: str) -> float:
    """About how many tokens `text` is: the more of what its words and its characters say."""
    return max(len(text.split()) / _WORDS_EACH, len(text) / _CHARACTERS_EACH)


def _sections(page: Page, heading: str) -> Iterator[tuple[int, int, str]]:
    """The page cut at its headings; before the first, the one of the page before goes on."""
    marks = [(0, heading), *sorted(page.headings), (len(page.text), "")]
    for (start, title), (end, _) in pairwise(marks):
        if end > start:
            yield start, end, title


def _units(text: str, start: int, end: int) -> Iterator[Span]:
    """Sentences, those that are longer than a passage in pieces."""
    for first, last in sentences(text[start:end]):
        first, last = first + start, last + start
        while last - first > _LONG or tokens(text[first:last]) > TOKENS:
            cut = max(text.rfind(mark, first + _PIECE // 2, first + _PIECE) for mark in " \n\t")
            cut = min(cut if cut > 0 else first + _PIECE, last)
            yield first, cut
            first = cut
            while first < last and text[first].isspace():
                first += 1
        if last > first:
            yield first, last


def _grouped(text: str, units: list[Span]) -> Iterator[Span]:
    """Neighbouring sentences together, as many as fit."""
    place = 0
    while place < len(units):
        begins, last = place, place + 1
        size = tokens(text[slice(*units[place])])
        while last < len(units) and size + (more := tokens(text[slice(*units[last])])) <= TOKENS:
            size += more
            last += 1
        yield units[begins][0], units[last - 1][1]
        if last == len(units):
            return
        again = last - 1 > begins and tokens(text[slice(*units[last - 1])]) <= _OVERLAP
        # The repeated sentence must leave room for the next one, else the passage would not grow.
        fits = again and tokens(text[units[last - 1][0] : units[last][1]]) <= TOKENS
        place = last - 1 if fits else last
