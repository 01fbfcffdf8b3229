"""Which reader reads which file, by the end of its name."""

from __future__ import annotations

from collections.abc import Callable

from appliance.serve.documents.docx import read_docx
from appliance.serve.documents.pdf import read_pdf
from appliance.serve.documents.plain import read_markdown, read_text
from appliance.serve.documents.texts import Page, Unreadable
from appliance.serve.documents.webpage import read_html

VERSION = 1  # raise it when a reader or the cutting into passages gives something else: all is read again
READERS: dict[str, Callable[[bytes], list[Page]]] = {
    "txt": read_text,
    "text": read_text,
    "md": read_markdown,
    "markdown": read_markdown,
    "html": read_html,
    "htm": read_html,
    "pdf": read_pdf,
    "docx": read_docx,
}


def kind_of(name: str) -> str:
    """The kind of a file by its name: a key of READERS, or "" for one that is not read."""
    stem, dot, end = name.rpartition(".")
    return end.lower() if stem and dot and end.lower() in READERS else ""


def read_document(kind: str, content: bytes) -> list[Page]:
    """The pages of a document. Call it in the reading child only (`child.py`): files are hostile.

    Raises:
        Unreadable: it gives no text. MemoryError: it needs more memory than this process may have.
    """
    try:
        return READERS[kind](content)
    except RecursionError:
        raise Unreadable("nested too deeply") from None
