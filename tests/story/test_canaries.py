"""Nothing that a sealed site leaves on a disk can be read: canaries through it all, then every byte."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import urllib.parse
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from leak_support import Leak, canary, forms, scan
from transformers import AutoTokenizer

from appliance.models.importing import DEMO_BASE

SCRIPT = Path(__file__).parent / "canary_site.py"
PLACES = ("home", "edge", "tmp", "person", "work", "tuned.clb", "edge.card")


def work(folder: Path, count: int, *fault: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(count), *fault],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def leaks(folder: Path) -> list[Leak]:
    """What can be read of the canaries: in the home, on the disk, in what killed processes left in memory."""
    memory = Path("/dev/shm") / f"cloister-{os.getuid()}"  # noqa: S108
    left = [each for each in memory.glob("*-*") if not Path("/proc", each.name.partition("-")[0]).exists()]
    return scan([*(folder / place for place in PLACES), *left], forms(tokens()))


def tokens() -> list[list[int]]:
    """What stands within each half of a canary once it is tokens."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE)
    found = []
    for half in canary(0).split("0000"):
        ids = tokenizer(f"I am x0417{half}0417x", add_special_tokens=False)["input_ids"]
        alone = tokenizer(half, add_special_tokens=False)["input_ids"]
        inner = alone[1:-1]
        assert any(ids[at : at + len(inner)] == inner for at in range(len(ids)))
        found.append(inner)
    return found


@pytest.mark.slow
def test_a_sealed_site_leaves_no_word_of_its_records(tmp_path: Path) -> None:
    check(tmp_path, 240)


@pytest.mark.soak
def test_a_thousand_canaries_leave_no_trace(tmp_path: Path) -> None:
    check(tmp_path, 1000)


def check(folder: Path, count: int) -> None:
    judge(folder, count, work(folder, count))


def judge(folder: Path, count: int, said: dict[str, Any]) -> None:
    # It was all done, and what went wrong did.
    assert (said["crashed"]["error"]["code"], said["killed"]["error"]["code"]) == ("job-failed", "job-failed")
    assert sum(said["resumed"]["result"]["counts"].values()) == count == sum(said["asked"]["counts"].values())
    assert said["bare"]["error"]["code"] == said["broken"]["error"]["code"] == "data-rejected"
    assert said["trained"]["result"]["privacy"]["steps_charged"] == 4 and said["docs"]["passages"] == 2
    assert said["answers"] == [200, 200, 200, 400, 404, 400, 200, 400, 404, 200, 200, 200], said["answers"]
    assert said["engines"] and len(said["feedback"]["feedback"]) == 1 and said["audit"]["ok"]
    assert all(
        canary(0)[:11] not in json.dumps(told) for told in (said["crashed"], said["bare"], said["broken"])
    )
    # Nothing was kept of what was typed, no core was left, and no job lost what holds its keys.
    assert list((folder / "person").rglob("*hist*")) == []
    assert list((folder / "work").iterdir()) == []
    logs = "".join(path.read_text() for path in (folder / "home" / "jobs").glob("*/log.txt"))
    assert "Bad file descriptor" not in logs
    crash = (folder / "home" / "jobs" / "0001" / "log.txt").read_text()
    assert "KeyError" in crash and "in broken" in crash  # it still says where
    assert leaks(folder) == []


def test_a_log_line_with_words_is_found(tmp_path: Path) -> None:
    work(tmp_path, 120, "crash", "talk")
    assert {Path(leak.path).name for leak in leaks(tmp_path)} == {"log.txt"}


def test_a_temporary_file_that_is_not_sealed_is_found(tmp_path: Path) -> None:
    work(tmp_path, 120, "kill", "plain")
    assert {Path(leak.path).name for leak in leaks(tmp_path)} == {
        f"{each}.jsonl" for each in ("train", "val", "test")
    }


WORD = canary(7)
PLANTED: dict[str, tuple[str, bytes]] = {
    "as it is": ("utf-8", WORD.encode()),
    "lower": ("utf-8", WORD.lower().encode()),
    "upper": ("utf-8", WORD.upper().encode()),
    "decomposed": ("utf-8", WORD.replace("ö", "o\u0308").encode()),
    "second half": ("utf-8", WORD[-12:].encode()),
    "latin-1": ("latin-1", WORD[:11].encode("latin-1")),
    "utf-16-le": ("utf-16-le", WORD.encode("utf-16-le")),
    "utf-16-be": ("utf-16-be", WORD.encode("utf-16-be")),
    "hex": ("hex", WORD.encode().hex().encode()),
    "HEX": ("hex", WORD.encode().hex().upper().encode()),
    "json": ("json", json.dumps(WORD[:11]).encode()),
    "json in json": ("json", json.dumps(json.dumps(WORD[:11])).encode()),
    "url": ("url", urllib.parse.quote(WORD[:11]).encode()),
    **{f"base64 {n}": ("base64", base64.b64encode(b"x" * n + WORD[:11].encode() + b"yz")) for n in range(3)},
    **{
        f"base64url {n}": ("base64", base64.urlsafe_b64encode(b"x" * n + WORD[11:].encode()))
        for n in range(3)
    },
    "gzip": ("utf-8", gzip.compress(WORD.encode())),
    "bzip2": ("utf-8", bz2.compress(WORD.encode())),
    "xz": ("utf-8", lzma.compress(WORD.encode())),
    **{f"zlib {level}": ("utf-8", zlib.compress(WORD.encode() * 9, level)) for level in (1, 5, 6, 9)},
    "gzip in gzip": ("utf-16-le", gzip.compress(gzip.compress(WORD.encode("utf-16-le")))),
    "gzip that is cut": ("utf-8", gzip.compress(os.urandom(2000) + WORD.encode() + os.urandom(9000))[:8000]),
}


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", content)
    return stream.getvalue()


PLANTED["zip"] = ("utf-8", zipped(WORD.encode() * 3))
for _width in (2, 4, 8):
    PLANTED[f"tokens of {_width} bytes"] = (
        "tokens",
        b"".join(n.to_bytes(_width, "little") for n in (4, 700, 31, 9)),
    )
PLANTED["tokens in json"] = ("tokens", json.dumps({"ids": [4, 700, 31, 9]}).encode())


@pytest.mark.parametrize("how", PLANTED)
def test_every_form_of_a_canary_is_found_in_the_middle_of_noise(tmp_path: Path, how: str) -> None:
    form, content = PLANTED[how]
    marks = forms([[700, 31]])
    path = tmp_path / "deep" / "cloister.db"
    path.parent.mkdir()
    path.write_bytes(os.urandom(70_001) + content + os.urandom(50_000))
    found = scan([tmp_path], marks)
    assert form in {leak.form for leak in found}
    assert (
        scan([tmp_path], {name: each for name, each in marks.items() if name != form}) == [] or "16" in form
    )
    path.write_bytes(os.urandom(120_000))
    assert scan([tmp_path], marks) == []


def test_names_and_links_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"of {WORD}.txt").write_bytes(b"")
    (tmp_path / "link").symlink_to(f"/nowhere/{WORD}")
    assert {leak.form for leak in scan([tmp_path], forms())} == {"name, utf-8", "utf-8"}
