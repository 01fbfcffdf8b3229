"""Text and Markdown: UTF-8, or UTF-16 with a byte order mark; headings from "# title" and underlines."""

from __future__ import annotations

import codecs
import re

from appliance.serve.documents.texts import Page, Unreadable, check_length, clean, heading_of

_HASHES = re.compile(r"#{1,6}[ \t]+(\S.*)")
_CLOSING = re.compile(r"[ \t]#+[ \t]*$")
_FENCE = ("```", "~~~")
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def read_text(content: bytes) -> list[Page]:
    """A text file as one page without a number.

    Raises:
        Unreadable: it is binary, empty, or not UTF-8.
    """
    return [Page(number=None, text=_decoded(content))]


def read_markdown(content: bytes) -> list[Page]:
    """A Markdown file as one page; the marks stay in the text, so that quotes are as in the file."""
    text = _decoded(content)
    headings: list[tuple[int, str]] = []
    at, fenced, before = 0, False, ""
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(_FENCE):
            fenced = not fenced
        elif not fenced and (found := _HASHES.match(line)):
            headings.append((at, heading_of(_CLOSING.sub("", found[1]))))
        elif not fenced and before.strip() and len(bare) > 2 and set(bare) in ({"="}, {"-"}):
            headings.append((at - len(before) - 1, heading_of(before)))
        at, before = at + len(line) + 1, line
    return [Page(number=None, text=text, headings=tuple(headings))]


def decode(content: bytes, encoding: str | None = None) -> str:
    """Bytes as text: by byte order mark, else as `encoding`, else UTF-8.

    Raises:
        Unreadable: they are none.
    """
    wide = _WIDE.get(content[:2])
    if wide is None and b"\0" in content:
        raise Unreadable("binary, not text")
    try:
        if wide:
            return content[2:].decode(wide)
        if content.startswith(codecs.BOM_UTF8):
            return content.decode("utf-8-sig")
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8 text: save it as UTF-8") from None


def _decoded(content: bytes) -> str:
    text = clean(decode(content))
    check_length(len(text))
    if not text.strip():
        raise Unreadable("empty")
    return text
