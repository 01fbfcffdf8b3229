"""Small real documents of every kind, and a collection made of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from appliance.core.home import Home
from appliance.serve.documents.embedding import Embedder
from appliance.serve.documents.indexing import Indexed, update

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
LEAVE = "Staff have 30 days of leave a year. Leave is asked for in the portal, two weeks ahead."
VISITS = "Visitors may come from 14:00 to 18:00. Children under 12 need an adult with them."
DOSE = "Paracetamol: give 500 mg every six hours. Never give more than 4000 mg a day."


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF with one line of Helvetica a page; "" makes a page without text."""
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for text in pages:
        drawn = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        content = f"BT /F1 12 Tf 40 700 Td ({drawn}) Tj ET".encode("latin-1") if text else b""
        bodies.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(bodies)
        )
        kids.append(b"%d 0 R" % len(bodies))
    bodies[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    found, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(bodies, start=1):
        places.append(len(found))
        found += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    at = len(found)
    found += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    found += b"".join(b"%010d 00000 n \n" % place for place in places)
    found += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, at)
    return bytes(found)


def encrypted_pdf(text: str, password: str) -> bytes:
    """A PDF that opens with `password`."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([text]))))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def paragraph(text: str, style: str = "", run: str = "") -> str:
    """A WordprocessingML paragraph."""
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r>{run}<w:t>{escape(text)}</w:t></w:r></w:p>"


def docx(body: str, **parts: bytes) -> bytes:
    """A DOCX whose body is `body`; its style "berschrift1" is Word's heading 1."""
    styles = (
        f'<w:styles xmlns:w="{WORD}"><w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
        "</w:styles>"
    )
    document = f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return zipped({"word/document.xml": document.encode(), "word/styles.xml": styles.encode(), **parts})


def zipped(parts: dict[str, bytes]) -> bytes:
    """A ZIP file with these members."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    return written.getvalue()


def folder(place: Path, files: dict[str, str | bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def policies(place: Path) -> Path:
    """Three short documents of three kinds."""
    return folder(
        place,
        {"leave.txt": LEAVE, "wards/visits.md": f"# Visiting hours\n\n{VISITS}\n", "dose.pdf": pdf([DOSE])},
    )


def add(home: Home, place: Path, name: str = "policies", *, job: str = "0001", **rest: Any) -> Indexed:
    """Index a folder as the job does."""
    return update(home, name, place, job=job, who="test", **rest)


class Counting:
    """An embedder of known meaning: each topic's words count into one dimension."""

    TOPICS = (
        ("leave", "days", "holiday", "vacation", "portal"),
        ("visitors", "visiting", "guests", "hours", "children"),
        ("paracetamol", "mg", "dose", "painkiller", "give"),
    )

    def __init__(self, name: str = "toy") -> None:
        self.embedder = Embedder(name=name, id=f"{name}@0123", embed=self)
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += texts
        counts = [
            [sum(text.lower().count(word) for word in topic) for topic in self.TOPICS] for text in texts
        ]
        return np.array(counts, np.float32) + 0.01
