"""cloister docs: from a folder to an opened passage, in a terminal of 80 columns and as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from appliance.core.home import Home
from appliance.core.job import Job
from appliance.models import registry
from appliance.models.registry import Model
from appliance.serve.documents.embedding import Embedder
from appliance.serve.documents.indexing import update
from appliance.serve.documents.job import run as index
from tui.cli.entry import run

LEAVE = "Staff have 30 days of leave a year. Leave is asked for in the portal, two weeks ahead."


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "a folder with a long name for the policies of the house" / "2026"
    place.mkdir(parents=True)
    (place / "leave.md").write_text(f"# Leave\n\n{LEAVE}\n")
    (place / f"{'long-' * 20}name.txt").write_text("Visitors may come from 14:00 to 18:00.")
    (place / "scan.bin").write_bytes(b"\0")
    return place


@pytest.fixture
def policies(home: Home, place: Path) -> Home:
    job = Job(id="0001", kind="docs", folder=home.jobs / "0001", home=home, who="mira")
    job.folder.mkdir()
    index({"folder": str(place), "collection": "policies"}, job)
    return home


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run([*words]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines() if "cloister docs open" not in line), out
    return out


def test_add_is_a_job(
    home: Home,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The entry point stands in a folder of its own: an installed one may be of another version."""
    named = tmp_path / "named" / "named-1.dist-info"
    named.mkdir(parents=True)
    (named / "METADATA").write_text("Metadata-Version: 2.1\nName: named\nVersion: 1\n")
    (named / "entry_points.txt").write_text("[cloister.jobs]\ndocs = appliance.serve.documents.job:run\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(named.parent), *filter(None, sys.path)]))
    found = told(capsys, "docs", "add", str(place), "--collection", "policies")
    assert (found["added"], found["passages"], found["protected"]) == (2, 2, False)
    assert found["left_out"] == {"not of a kind that is read": 1}
    assert told(capsys, "job", "list")["jobs"][0]["kind"] == "docs"
    out = lines(capsys, "docs", "add", str(place), "--collection", "policies")
    assert "0 files added, 0 changed, 0 removed, 2 as before" in out
    assert "not protected by differential privacy" in " ".join(out.split())
    entries = [entry["what"] for entry in told(capsys, "audit", "tail")["entries"]]
    assert entries.count("docs.add") == 1
    (empty := tmp_path / "empty").mkdir()
    assert "WARNING" in lines(capsys, "docs", "add", str(empty), "--collection", "none-there")
    assert run(["docs", "add", str(place / "leave.md"), "--collection", "x"]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_look_search_open_remove(policies: Home, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "keywords only" in (out := lines(capsys, "docs", "list"))
    assert "not protected by differential privacy" in " ".join(out.split())
    out = lines(capsys, "docs", "show", "policies")
    assert "scan.bin: not of a kind that is read (read are .txt," in " ".join(out.split())
    assert "keywords only" in out
    (place / "leave.md").touch()
    assert "1 file changed since" in lines(capsys, "docs", "show", "policies")
    assert "policies: 1 file changed since" in lines(capsys, "docs", "list")
    out = lines(capsys, "docs", "search", "policies", 'days of "leave"')
    assert "1 file changed since" in out
    assert out.startswith("[1] leave.md, Leave\n") and "Searched by keywords only." in out
    found = told(capsys, "docs", "search", "policies", "days of leave")
    address = found["passages"][0]["address"]
    assert found["search"] == "keywords only" and address.startswith("policies/leave.md#0-")
    assert f"> {LEAVE[:40]}" in lines(capsys, "docs", "open", address)
    assert LEAVE in told(capsys, "docs", "open", address)["text"]
    (place / "leave.md").write_text("No leave.")
    assert run(["docs", "open", address]) == 4
    assert "changed since" in capsys.readouterr().err
    assert told(capsys, "docs", "remove", "policies")["removed"]
    assert told(capsys, "docs", "list")["collections"] == []
    assert told(capsys, "audit", "tail")["entries"][-1]["what"] == "docs.remove"


def test_passages_embedded_in_parts_are_told(
    home: Home, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = Embedder(
        name="minilm",
        id="minilm@0",
        embed=lambda texts: np.ones((len(texts), 2)),
        parts=lambda texts: [1 + ("leave" in text) for text in texts],
    )
    update(home, "policies", place, job="0001", who="mira", embedder=toy)
    out = " ".join(lines(capsys, "docs", "show", "policies").split())
    assert "searched by keywords and minilm" in out
    assert "1 passage is longer than the embedding model reads at once" in out
    assert told(capsys, "docs", "show", "policies")["in_parts"] == 1
    assert told(capsys, "audit", "tail")["entries"][-1]["in_parts"] == 1


def test_a_chat_model_is_refused_before_there_is_a_job(
    home: Home, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = GGUFWriter(place.parent / "chat.gguf", "llama")
    writer.add_uint32("llama.context_length", 64)
    writer.add_uint32("llama.embedding_length", 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    path = place.parent / "chat.gguf"
    registry.add(home, Model(name="chat", kind="gguf", path=path, sha256="0", size=1), who="t")
    assert run(["docs", "add", str(place), "--collection", "policies", "--embed", "chat"]) == 2
    assert "chat writes text and was not made to embed it" in capsys.readouterr().err
    assert told(capsys, "job", "list")["jobs"] == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("docs show none", 3, "There is no collection none."),
        ("docs show A", 2, "a-z, 0-9 and -"),
        ("docs add /nowhere --collection x", 3, "There is no folder"),
        ("docs add . --collection X", 2, "a-z, 0-9 and -"),
        ("docs add . --collection x --embed none-such", 3, "no model named none-such"),
        ("docs open x", 3, "not the address of a passage"),
        ("docs remove none", 3, "There is no collection none."),
        ("docs search policies x --embed none-such", 3, "no model named none-such"),
    ],
)
def test_wrong_words(
    policies: Home, capsys: pytest.CaptureFixture[str], words: str, code: int, said: str
) -> None:
    assert run(words.split()) == code
    assert said in capsys.readouterr().err
    assert told(capsys, "job", "list")["jobs"] == []
