"""DOCX (ECMA-376, WordprocessingML): body, footnotes and endnotes, without deleted or hidden text.

The file is hostile until read: no document type, no entities (so no XXE and no "billion laughs"), and no
part is unpacked beyond MOST_XML bytes, whatever its header says.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from io import BytesIO
from typing import NoReturn
from xml.parsers import expat

from appliance.serve.documents.texts import Block, Page, Unreadable, page_of

MOST_XML = 64 << 20
_MOST_PARTS = 10_000
_DEEPEST = 500
_WORD = re.compile(
    r"http://(?:schemas\.openxmlformats\.org/wordprocessingml/2006/main"
    r"|purl\.oclc\.org/ooxml/wordprocessingml/main) (\w+)$"
)
_HEADING = re.compile(r"(?:heading ?[1-9]|title)$", re.IGNORECASE)
_OFF = {"0", "false", "off"}


def read_docx(content: bytes) -> list[Page]:
    """The text as one page without a number: Word decides on pages when it prints.

    Raises:
        Unreadable: it is encrypted, damaged, too large, or has no text.
    """
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable("encrypted, or an old .doc")
    try:
        with zipfile.ZipFile(BytesIO(content)) as packed:
            names = {entry.filename for entry in packed.infolist()}
            if len(names) > _MOST_PARTS:
                raise Unreadable("too many parts")
            if "word/document.xml" not in names:
                raise Unreadable("damaged")
            styles = _Styles()
            if "word/styles.xml" in names:
                styles.parse(_part(packed, "word/styles.xml"))
            blocks: list[Block] = []
            for name in ("word/document.xml", "word/footnotes.xml", "word/endnotes.xml"):
                if name in names:
                    body = _Body(styles.headings)
                    body.parse(_part(packed, name))
                    blocks += body.blocks
    except (Unreadable, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, ValueError, KeyError):
        raise Unreadable("damaged") from None
    except (RuntimeError, NotImplementedError):  # zipfile: a password, or a way of packing it lacks
        raise Unreadable("encrypted") from None
    page = page_of(blocks)
    if not page.text:
        raise Unreadable("no text")
    return [page]


def _part(packed: zipfile.ZipFile, name: str) -> bytes:
    with packed.open(name) as stream:
        content = stream.read(MOST_XML + 1)
    if len(content) > MOST_XML:
        raise Unreadable(f"unpacks to more than {MOST_XML >> 20} MB")
    return content


class _Xml:
    """Calls `start` and `end` for WordprocessingML elements; refuses what no Word file needs."""

    def __init__(self) -> None:
        self.depth = 0

    def parse(self, content: bytes) -> None:
        """Read one XML part."""
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ExternalEntityRefHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.text
        parser.Parse(content, True)

    def _refuse(self, *about: object) -> NoReturn:
        raise Unreadable("it declares XML entities, which no Word file does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("nested too deeply")
        found = _WORD.match(name)
        own = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        self.start(found[1] if found else "", name.rpartition(" ")[2], own)

    def _end(self, name: str) -> None:
        self.depth -= 1
        found = _WORD.match(name)
        self.end(found[1] if found else "", name.rpartition(" ")[2])

    def start(self, tag: str, any_tag: str, attributes: dict[str, str]) -> None:
        """An element begins; `tag` is empty for those of other vocabularies."""

    def end(self, tag: str, any_tag: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Characters between marks."""


class _Styles(_Xml):
    """Which paragraph styles are headings: their ids are translated, their names are not."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: set[str] = set()
        self._id = ""

    def start(self, tag: str, any_tag: str, attributes: dict[str, str]) -> None:
        if tag == "style":
            self._id = attributes.get("styleId", "")
        elif tag == "name" and _HEADING.match(attributes.get("val", "")):
            self.headings.add(self._id)


class _Body(_Xml):
    """Collects paragraphs; a row of a table is one block."""

    def __init__(self, headings: set[str]) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self._headings = headings
        self._parts: list[str] = []
        self._heading = self._writing = self._vanish = self._in_run = False
        self._tables = self._silent = 0

    def start(self, tag: str, any_tag: str, attributes: dict[str, str]) -> None:
        if any_tag == "Fallback":  # says again what its Choice says
            self._silent += 1
        on = attributes.get("val", "1").lower() not in _OFF
        if tag == "tbl":
            self._tables += 1
        elif tag == "pStyle":
            self._heading = attributes.get("val", "") in self._headings
        elif tag == "r":
            self._vanish, self._in_run = False, True
        elif tag == "vanish" and self._in_run:
            self._vanish = on
        elif tag == "t":
            self._writing = True
        elif tag in ("tab", "br", "cr", "noBreakHyphen") and self._in_run:
            self.write({"tab": "\t", "noBreakHyphen": "-"}.get(tag, "\n"))

    def end(self, tag: str, any_tag: str) -> None:
        if any_tag == "Fallback":
            self._silent -= 1
        if tag == "t":
            self._writing = False
        elif tag == "r":
            self._vanish = self._in_run = False
        elif tag == "tbl":
            self._tables -= 1
        elif tag == "tc":
            while self._parts and self._parts[-1] == " ":
                self._parts.pop()
            self._parts.append(" | ")
        elif tag == "tr" or (tag == "p" and not self._tables):
            text = "".join(self._parts).strip(" |\n\t")
            self.blocks.append(Block(text=text, heading=self._heading and not self._tables))
            self._parts.clear()
            self._heading = False
        elif tag == "p":
            self._parts.append(" ")

    def text(self, text: str) -> None:
        if self._writing:
            self.write(text)

    def write(self, text: str) -> None:
        """Add characters, unless they are hidden."""
        if not self._vanish and not self._silent:
            self._parts.append(text)
