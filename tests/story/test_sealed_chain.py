"""The whole chain in two sealed homes, by commands: no file of them is plain but those named here.

Records in, trained, quantised, served over TLS while the site locks itself, shipped, received. Then every
byte of both homes, of the folder for temporary files and of what the commands printed is looked through.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.core.vaulted import MAGIC

ROOT = Path(__file__).resolve().parents[2]
WORDS = "seven grey herons wade"
CANARY, ASKED = "Zoltanquux", "Zebedeeplover"  # in every record; in what is asked of the endpoint

PLAIN = re.compile(
    r"vault\.json|vault-tries\.json|people\.json"  # who may open it, under a MAC or signed in the database
    r"|(vault|vault-files|vault-tries)\.lock|bundles/\.lock"  # empty
    r"|cloister\.db(-wal|-shm)?"  # names, hashes, counts
    r"|tls/(ca|server)\.pem|witnesses/[0-9a-f-]+\.note"  # public
    r"|jobs/\d+/(events\.jsonl|log\.txt)|jobs/\d+/(.*/)?llama-server\.log"  # how jobs went
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Two homes and what was said there."""

    folder: Path
    said: list[str]

    def run(self, home: str, *words: str, code: int = 0) -> dict[str, Any]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        command = [sys.executable, "-m", "tui.launch", *words, "--json", "--home", str(self.folder / home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, stdin=-3)
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def unlock(self, home: str, *more: str) -> None:
        self.run(home, "unlock", "--passphrase-file", str(self.folder / "words"), "--allow-swap", *more)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(folder=tmp_path, said=[])
    (tmp_path / "words").write_text(WORDS)
    (tmp_path / "words").chmod(0o600)
    for home in ("site", "edge"):
        mira = ("--passphrase-file", f"mira={tmp_path / 'words'}")
        made = found.run(home, "init", "--site", home, "--single-person", "--seal", *mira)
        assert made["sealed"] is True and made["were_plain"] == 0
        assert "old blocks" not in found.said[-1]
    yield found
    for home in ("site", "edge"):
        found.run(home, "lock")


@pytest.mark.slow
def test_no_file_of_a_sealed_home_is_plain_after_the_whole_chain(place: Place) -> None:
    site, folder = place.run, place.folder
    records = folder / "records.csv"
    with records.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient", "message", "queue"])
        table.writerows(
            [f"P{n % 200}", f"{CANARY} has {['a cough', 'an unpaid bill'][n % 2]}, day {n}", "ab"[n % 2]]
            for n in range(600)
        )
    site("site", "model", "import", "demo")
    columns = ("--text", "message", "--label", "queue", "--unit", "patient")
    site("site", "data", "import", str(records), "--name", "inbox", *columns)
    records.unlink()
    site("site", "train", "inbox", "--steps", "2", "--sample-rate", "0.2", "--name", "tuned")
    site("site", "quantize", "tuned", "--to", "Q8_0")
    site("site", "evaluate", "tuned", "--limit", "20")
    _serve(place)
    sent = str(folder / "tuned.clb")
    for one, other in (("site", "edge"), ("edge", "site")):
        words = site(one, "trust", "card", "--to", str(folder / f"{one}.card"))["words"]
        both = ("--compared-by", "mira", "--compared-by", "joe")
        site(other, "trust", "add", str(folder / f"{one}.card"), "--words", words, *both)
    site("site", "bundle", "export", "tuned-q8_0", "--to", "edge", "--out", sent)
    site("edge", "bundle", "import", sent, "--name", "came")
    site("edge", "audit", "checkpoint", "--to", str(folder / "edge.note"))
    site("edge", "audit", "witness", str(folder / "edge.note"))
    assert site("edge", "chat", "came", "--ask", f"{ASKED} wants a form")["answer"]
    site("edge", "lock")  # and what is said while it is locked
    site("edge", "trust", "card", code=12)
    site("edge", "audit", "checkpoint", code=12)
    site("edge", "chat", "came", "--ask", "x", code=12)
    for home in ("site", "edge"):
        assert _plain(folder / home) == []
    assert _holding(folder) == []
    assert not any(CANARY in text or ASKED in text for text in place.said)


def _serve(place: Place) -> None:
    """Over TLS with the site's own key, which is sealed; the site locks itself meanwhile."""
    everywhere = ("--host", "0.0.0.0", "--port", "18241")  # noqa: S104
    started = place.run("site", "serve", "tuned-q8_0", *everywhere, "--ungated", "--detach")
    key = place.run("site", "key", "new", "--for", "dms")["key"]
    folder = place.folder / "site" / "tls"
    assert (folder / "server.key").read_bytes().startswith(MAGIC)
    place.run("site", "lock")
    place.unlock("site", "--minutes", "0.1")
    trusted = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    url = "https://127.0.0.1:18241"
    question = {"messages": [{"role": "user", "content": f"{ASKED} has a bill"}], "model": "tuned-q8_0"}

    def ask() -> int:
        with httpx.Client(verify=trusted, trust_env=False, headers={"Authorization": f"Bearer {key}"}) as on:
            return on.post(f"{url}/v1/chat/completions", json=question, timeout=60).status_code

    _until(lambda: place.run("site", "vault", "status")["locked"])
    assert ask() == 200, "what serves goes on"
    for line in ("chat tuned-q8_0 --ask x", "vault take jobs/0001/spec.json --to x", "trust card"):
        words = line.split()
        assert place.run("site", *words, code=12)["error"]["code"] == "locked", "and no door is open"
    assert ask() == 200
    place.unlock("site")
    place.run("site", "job", "stop", started["job"])


def _until(reached: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.2)


def _plain(home: Path) -> list[str]:
    """The files that are neither sealed nor named above; the empty ones must be."""
    found = []
    for file in home.rglob("*"):
        name = file.relative_to(home).as_posix()
        if not file.is_file() or file.read_bytes()[: len(MAGIC)] == MAGIC:
            continue
        if not PLAIN.fullmatch(name) or (name.endswith(".lock") and file.stat().st_size):
            found.append(name)
    return found


def _holding(folder: Path) -> list[str]:
    """The files with a word that only records or requests have, in any spelling."""
    marks = []
    for word in (CANARY, ASKED):
        whole = word.encode()
        marks += [whole, word.encode("utf-16-le"), word.encode("utf-16-be"), whole.hex().encode()]
        marks += [base64.b64encode(b"x" * shift + whole + b"xxx")[4:-4] for shift in range(3)]
    return [
        str(file)
        for file in folder.rglob("*")
        if file.is_file() and any(mark in file.read_bytes() for mark in marks)
    ]
