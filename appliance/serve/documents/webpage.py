"""HTML as a reader of the page sees it: no scripts, no styles, nothing that is hidden.

Text that a browser does not show is left out because it is where orders to a model are hidden.
"""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser

from appliance.serve.documents.plain import decode
from appliance.serve.documents.texts import Block, Page, Unreadable, page_of

_SILENT = {
    *("script", "style", "template", "noscript", "title", "svg", "math", "iframe", "object", "canvas"),
    *("select", "textarea", "audio", "video", "noframes"),
}
_VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
}
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "ins"),
    *("kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u", "var"),
    *("wbr", "tt", "big", "strike"),
}
_REPEATING = {"li", "dt", "dd", "tr", "td", "th", "option"}  # the next one ends it
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|opacity)\s*:\s*0(?![.\d])")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_DEEPEST = 2000


def read_html(content: bytes) -> list[Page]:
    """The shown text of a page, one page without a number; its headings are h1 to h6.

    Raises:
        Unreadable: it is no text, or shows none.
    """
    parser = _Shown()
    parser.feed(decode(content, _charset(content[:2048])))
    parser.close()
    parser.end_block()
    page = page_of(parser.blocks)
    if not page.text:
        raise Unreadable("no text")
    return [page]


def _charset(head: bytes) -> str | None:
    """The encoding that the page names, if Python knows it as one of text."""
    found = _CHARSET.search(head)
    if found is None:
        return None
    try:
        known = codecs.lookup(found[1].decode("ascii"))
    except LookupError:
        return None
    return known.name if getattr(known, "_is_text_encoding", False) else None


class _Shown(HTMLParser):
    """Collects blocks. `_open` holds the elements that are open, and whether each hides its content."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._open: list[tuple[str, bool]] = []
        self._parts: list[str] = []
        self._hidden = 0
        self._heading = False
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _INLINE:
            self._break(tag)
            if self._open and (last := self._open[-1][0]) and (last == "p" or last == tag in _REPEATING):
                self._close(self._open.pop())
        if tag in _VOID:
            return
        if len(self._open) >= _DEEPEST:
            raise Unreadable("nested too deeply")
        named = dict(attrs)
        hides = (
            tag in _SILENT
            or "hidden" in named
            or (named.get("aria-hidden") or "").lower() == "true"
            or bool(_HIDING.search((named.get("style") or "").lower()))
        )
        self._open.append((tag, hides))
        self._hidden += hides
        self._heading = self._heading or tag in _HEADINGS
        self._preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)  # as browsers do, "<p/>" opens a paragraph

    def handle_endtag(self, tag: str) -> None:
        if tag not in _INLINE:
            self._break(tag)
        if tag in _VOID or not any(name == tag for name, _ in self._open):
            return
        while True:
            last = self._open.pop()
            self._close(last)
            if last[0] == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def end_block(self) -> None:
        """What was collected becomes a block."""
        text = "".join(self._parts)
        if text.strip(" \t\n|"):
            self.blocks.append(Block(text=text, heading=self._heading))
        self._parts.clear()

    def _break(self, tag: str) -> None:
        """A cell stays in its row, a line in its paragraph; everything else is a block of its own."""
        if tag in ("td", "th"):
            if "".join(self._parts).strip():
                self._parts.append(" | ")
        elif tag == "br":
            self._parts.append("\n")
        else:
            self.end_block()

    def _close(self, element: tuple[str, bool]) -> None:
        tag, hides = element
        self._hidden -= hides
        self._preformatted -= tag == "pre"
        if tag in _HEADINGS:
            self._heading = False
