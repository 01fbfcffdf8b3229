"""Every kind of document gives its text, or a reason; nothing that a reader of the page does not see."""

from __future__ import annotations

import documents_support as d
import pytest

from appliance.serve.documents.docx import read_docx
from appliance.serve.documents.pdf import read_pdf
from appliance.serve.documents.plain import read_markdown, read_text
from appliance.serve.documents.reading import kind_of
from appliance.serve.documents.texts import Page, Unreadable
from appliance.serve.documents.webpage import read_html


def test_text_in_utf8_and_utf16() -> None:
    assert read_text("\ufeffCafe\u0301\r\nzwei\x1b[31m".encode()) == [
        Page(number=None, text="Caf\u00e9\nzwei [31m")
    ]
    assert read_text("Straße".encode("utf-16"))[0].text == "Straße"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"MZ\0\0", "binary, not text"),
        (b"\xff\x00\xd8", "binary, not text"),
        ("Straße".encode("latin-1"), "not UTF-8 text: save it as UTF-8"),
    ],
)
def test_what_is_no_text(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as problem:
        read_text(content)
    assert problem.value.reason == reason


def test_markdown_headings() -> None:
    text = "# One #\n\ntext\n\n```\n# code\n```\nTwo words\n---------\n\n- item\n---\n"
    (page,) = read_markdown(text.encode())
    assert page.text == text
    assert [(page.text[at:].split("\n")[0], title) for at, title in page.headings] == [
        ("# One #", "One"),
        ("Two words", "Two words"),
        ("- item", "- item"),
    ]


def test_html_as_it_is_seen() -> None:
    source = """<!doctype html><html><head><title>T</title><style>p{}</style><script>var secret=1</script>
    <body><h1>Rules &amp; <b>hours</b></h1><!-- secret comment --><p>First
    line<br>second.<p hidden>secret one<p>Third<div style="DISPLAY : none">secret <b>two</b></div>
    <template><p>secret three</p></template><table><tr><td>Dose<td>40 mg</tr></table>
    <span style="font-size:0">secret four</span><span aria-hidden="true">secret five</span>
    <p style="opacity:0.5">Half</p><pre>a
  b</pre>"""
    (page,) = read_html(source.encode())
    assert "secret" not in page.text
    assert page.text == "Rules & hours\n\nFirst line\nsecond.\n\nThird\n\nDose | 40 mg\n\nHalf\n\na\n  b"
    assert page.headings == ((0, "Rules & hours"),)


def test_html_in_the_encoding_it_names() -> None:
    assert read_html("<meta charset='windows-1252'><p>Straße".encode("cp1252"))[0].text == "Straße"
    with pytest.raises(Unreadable, match="not UTF-8"):
        read_html("<meta charset=hex_codec><p>Straße".encode("cp1252"))
    with pytest.raises(Unreadable, match="no text"):
        read_html(b"<script>x()</script>")


def test_pdf_pages() -> None:
    pages = read_pdf(d.pdf(["First (page)", "", "Third page"]))
    assert [(page.number, page.text) for page in pages] == [(1, "First (page)"), (3, "Third page")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%PDF-1.4 and then nothing", "damaged"),
        (d.pdf(["words"])[:200], "damaged"),
        (d.pdf(["", ""]), "no text in it (a scan?)"),
        (d.encrypted_pdf("words", "secret"), "encrypted"),
    ],
)
def test_pdf_that_gives_no_text(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as problem:
        read_pdf(content)
    assert problem.value.reason == reason


def test_a_pdf_that_opens_without_a_password_is_read() -> None:
    assert read_pdf(d.encrypted_pdf("words", ""))[0].text == "words"


def test_docx() -> None:
    hidden = "<w:rPr><w:vanish/></w:rPr>"
    row = "<w:tr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr>"
    table = "<w:tbl>" + row.format(d.paragraph("Dose"), d.paragraph("40 mg")) + "</w:tbl>"
    deleted = "<w:p><w:del><w:r><w:delText>secret</w:delText></w:r></w:del><w:r><w:t>kept</w:t></w:r></w:p>"
    other = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    twice = f"<mc:AlternateContent {other}><mc:Choice><w:p><w:r><w:t>once</w:t></w:r></w:p></mc:Choice>" + (
        "<mc:Fallback><w:p><w:r><w:t>once</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
    )
    body = d.paragraph("Title", style="berschrift1") + d.paragraph("a < b") + table
    body += d.paragraph("secret", run=hidden) + deleted + twice
    note = f'<w:footnotes xmlns:w="{d.WORD}">{d.paragraph("A footnote.")}</w:footnotes>'.encode()
    (page,) = read_docx(d.docx(body, **{"word/footnotes.xml": note}))
    assert page.text == "Title\n\na < b\n\nDose | 40 mg\n\nkept\n\nonce\n\nA footnote."
    assert page.headings == ((0, "Title"),) and page.number is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04 not a zip", "damaged"),
        (d.zipped({"other.xml": b"<a/>"}), "damaged"),
        (d.docx("<w:p>")[:-40], "damaged"),
        (d.docx("<w:p></w:x>"), "damaged"),
        (d.docx(d.paragraph(" ")), "no text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "encrypted, or an old .doc"),
    ],
)
def test_docx_that_gives_no_text(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as problem:
        read_docx(content)
    assert problem.value.reason == reason


def test_kinds() -> None:
    assert [kind_of(name) for name in ("A.TXT", "b.tar.htm", "c.doc", ".pdf", "d", "e.docx ")] == [
        "txt",
        "htm",
        "",
        "",
        "",
        "",
    ]
