"""Files made to break their reader end in a reason, within limits, and the next file is read."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import documents_support as d
import psutil
import pytest

from appliance.core.home import Home
from appliance.serve.documents import docx
from appliance.serve.documents.child import Limits, Reader
from appliance.serve.documents.pdf import read_pdf
from appliance.serve.documents.reading import READERS
from appliance.serve.documents.retrieve import retrieve
from appliance.serve.documents.status import status
from appliance.serve.documents.texts import Unreadable

SMALL = Limits(memory=400 << 20, seconds=10)


def reason(reader: Reader, place: Path, kind: str, content: bytes) -> str:
    path = place / f"hostile.{kind}"
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        reader.read(handle, kind)
    except Unreadable as problem:
        return problem.reason
    finally:
        os.close(handle)
    return ""


def bomb_docx(size: int) -> bytes:
    return d.zipped({"word/document.xml": b"<a>" + b" " * size + b"</a>"})


def lying_docx() -> bytes:
    """A part whose header says 10 bytes and which unpacks to 200 MB."""
    content = bytearray(bomb_docx(200 << 20))
    central = content.rfind(b"PK\x01\x02")
    content[central + 24 : central + 28] = (10).to_bytes(4, "little")
    content[22:26] = (10).to_bytes(4, "little")
    return bytes(content)


def xml_docx(head: str, text: str, encoding: str = "utf-8") -> bytes:
    body = (
        f'<?xml version="1.0" encoding="{encoding}"?>{head}<w:document xmlns:w="{d.WORD}"><w:body>'
        f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )
    return d.zipped({"word/document.xml": body.encode(encoding)})


LAUGHS = (
    "<!DOCTYPE w ["
    + '<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)


def pdf_bomb() -> bytes:
    """A page whose content unpacks to 200 MB of operators."""
    packed = zlib.compress(b"q Q " * (50 << 20), 9)
    plain = d.pdf(["x"])
    at, end = plain.index(b"<< /Length"), plain.index(b"endstream")
    content = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\n" % (len(packed), packed)
    return plain[:at] + content + plain[end:]


def pdf_loop() -> bytes:
    """A tree of pages that contains itself."""
    return d.pdf(["x"]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]")


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("docx", bomb_docx(100 << 20), "unpacks to more than 64 MB"),
        ("docx", lying_docx(), "damaged"),
        ("docx", xml_docx(LAUGHS, "&a9;"), "declares XML entities"),
        ("docx", xml_docx('<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>', "&x;"), "declares XML"),
        ("docx", xml_docx('<!DOCTYPE w SYSTEM "http://127.0.0.1:9/x.dtd">', "x", "utf-16"), "declares XML"),
        ("docx", d.docx("<w:p>" * 100_000), "nested too deeply"),
        ("html", b"<div>" * 100_000 + b"x", "nested too deeply"),
        ("pdf", pdf_bomb(), "unpacks to too much"),
        ("pdf", pdf_loop(), ""),
    ],
)
def test_hostile_files(tmp_path: Path, kind: str, content: bytes, said: str) -> None:
    began = time.monotonic()
    with Reader(SMALL) as reader:
        found = reason(reader, tmp_path, kind, content)
        assert found and said in found
        assert "passwd" not in found and "root" not in found
        assert reason(reader, tmp_path, "txt", b"The next file.") == ""
    assert time.monotonic() - began < 30


def test_a_name_in_a_zip_leads_nowhere(tmp_path: Path) -> None:
    content = d.docx(d.paragraph("kept"), **{"../../../evil.txt": b"x", "/abs.txt": b"x"})
    with Reader(SMALL) as reader:
        assert reason(reader, tmp_path, "docx", content) == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["hostile.docx"]


HOOK = """
import os, resource, time
import appliance.serve.documents.reading as reading
def limits(content):
    what = content.decode()
    if what == "sleep":
        time.sleep(60)
    if what == "burn":
        while True: pass
    if what == "fill":
        x = [bytes(10_000_000) for _ in range(1000)]
    if what == "crash":
        os.abort()
    if what == "write":
        with open(os.environ["WRITTEN"], "w") as stream:
            stream.write("x" * 100)
    if what == "lie":
        import sys
        from appliance.serve.documents.texts import Page
        return [Page(number="x", text=b"no JSON")]
    raise reading.Unreadable("nothing")
reading.READERS["txt"] = limits
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("sleep", "takes longer than 2 s to read"),
        ("burn", "takes longer than 2 s to read"),
        ("fill", "needs more than 400 MB of memory to read"),
        ("crash", "broke the program that reads it"),
        ("write", "an input error while it was read"),
        ("lie", "broke the program that reads it"),
        ("else", "nothing"),
    ],
)
def test_limits_of_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: str) -> None:
    """The child's own reader is replaced by one that misbehaves."""
    hook = d.folder(tmp_path / "hook", {"sitecustomize.py": HOOK})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("WRITTEN", str(tmp_path / "written"))
    with Reader(Limits(memory=400 << 20, seconds=2)) as reader:
        assert reason(reader, tmp_path, "txt", what.encode()) == said
        assert reason(reader, tmp_path, "md", b"The next file.") == ""
    assert what != "write" or (tmp_path / "written").read_bytes() == b""


def test_the_child_ends_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a file that never ends, and when the parent is killed."""
    hook = d.folder(tmp_path / "hook", {"sitecustomize.py": HOOK})
    (tmp_path / "a.txt").write_text("burn")
    code = (
        "import os; from appliance.serve.documents.child import Reader; reader = Reader();"
        "reader._started(); print(reader._child.pid, flush=True);"
        f"reader.read(os.open({str(tmp_path / 'a.txt')!r}, os.O_RDONLY), 'txt')"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), *filter(None, sys.path)]))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        reader = psutil.Process(int(parent.stdout.readline()))
        while reader.cpu_times().user < 0.5:
            time.sleep(0.05)
        parent.kill()
    gone, _ = psutil.wait_procs([reader], timeout=60)
    assert gone or reader.status() == psutil.STATUS_ZOMBIE


def test_a_hostile_file_does_not_stop_the_others(home: Home, tmp_path: Path) -> None:
    place = d.policies(tmp_path / "documents")
    d.folder(place, {"a.docx": bomb_docx(100 << 20), "b.pdf": pdf_bomb(), "z.txt": "The last one."})
    d.add(home, place, limits=SMALL)
    assert status(home, "policies").read == 4
    assert retrieve(home, ["policies"], "last")[0].file == "z.txt"


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    """Random damage to real files: text or a reason, in every reader."""
    chance = random.Random(7)
    whole = {
        "pdf": d.pdf(["One (two) three", "Four"]),
        "docx": d.docx(d.paragraph("One", style="berschrift1") + d.paragraph("Two")),
        "html": b"<html><body><h1>One</h1><p title='x'>Two &amp; three<table><tr><td>4</table></body></html>",
        "md": b"# One\n\n```\ntwo\n```\nthree\n===\n",
    }
    read = 0
    for _ in range(150):
        for kind, content in whole.items():
            broken = bytearray(content)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(len(broken))
                broken[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 4))
            try:
                read += bool(READERS[kind](bytes(broken)))
            except Unreadable as problem:
                assert len(problem.reason) < 80
    assert read > 50


def test_a_zip_with_a_password_or_an_unknown_packing() -> None:
    content = bytearray(d.docx(d.paragraph("x")))
    for header, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(header)
        while at >= 0:
            content[at + flag] |= 1
            at = content.find(header, at + 1)
    with pytest.raises(Unreadable, match="encrypted"):
        docx.read_docx(bytes(content))
    many = BytesIO()
    with zipfile.ZipFile(many, "w") as packed:
        for number in range(10_001):
            packed.writestr(f"{number}", b"")
    with pytest.raises(Unreadable, match="too many parts"):
        docx.read_docx(many.getvalue())


def test_pdf_text_is_clean() -> None:
    (page,) = read_pdf(d.pdf(["a\x1b[2Jb"]))
    assert "\x1b" not in page.text
