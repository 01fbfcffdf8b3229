"""What a reader gives: pages of text with their headings, or the reason why there is none.

Offsets count characters in the whole text, which is the pages joined by PAGE_BREAK. All text is NFC, has
"\\n" line ends, no control characters and nothing that UTF-8 cannot hold.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

PAGE_BREAK = "\n\n"
MOST_CHARACTERS = 20_000_000  # of one document: about 10,000 pages
LONGEST_HEADING = 200
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Unreadable(Exception):
    """A file that gives no text; `reason` is a few words for a list, never what stands in the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page; `number` from 1, None in formats without pages. `headings`: offset in it, and title."""

    number: int | None
    text: str = field(repr=False)
    headings: tuple[tuple[int, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, or a heading."""

    text: str = field(repr=False)
    heading: bool = False


def clean(text: str) -> str:
    """`text` in the form that all document text has."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\v", "\n")
    text = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFC", text)


def page_of(blocks: Iterable[Block], number: int | None = None) -> Page:
    """A page with `blocks` under each other, empty ones left out.

    Raises:
        Unreadable: more text than a document may have.
    """
    parts: list[str] = []
    headings: list[tuple[int, str]] = []
    at = 0
    for block in blocks:
        text = clean(block.text).strip()
        if not text:
            continue
        if block.heading:
            headings.append((at, heading_of(text)))
        parts.append(text)
        at += len(text) + len(PAGE_BREAK)
        check_length(at)
    return Page(number=number, text=PAGE_BREAK.join(parts), headings=tuple(headings))


def heading_of(text: str) -> str:
    """A heading in one line, cut where it is no longer one."""
    return " ".join(text.split())[:LONGEST_HEADING]


def check_length(characters: int) -> None:
    """Refuse more text than a document may have.

    Raises:
        Unreadable: it is.
    """
    if characters > MOST_CHARACTERS:
        raise Unreadable(f"more than {MOST_CHARACTERS:,} characters of text")
