"""cloister audit: verify, checkpoint, witness and export in 80 columns and as JSON, and what damage says."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import transaction
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log.checkpoint import Signer
from tui import session_audit
from tui.cli.entry import run

KEY = Signer(name="cloister/st-anna", key=Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.fixture
def keyed(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(session_audit, "site_key", lambda home: KEY)
    with transaction(home) as link:
        for number in range(9):
            audit.record(link, who="mira", what="test", target=str(number))
    return home


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    assert run([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def lines(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert run(list(map(str, words))) == code
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("— ")), out
    return out + err


def spoil(home: Home) -> None:
    with closing(sqlite3.connect(home.database)) as link:
        link.execute("DROP TRIGGER audit_no_UPDATE")
        link.execute("UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 4")
        link.commit()


def test_there_and_back(keyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "intact up to entry 9, witnessed by nobody yet" in lines(capsys, "audit", "verify")
    stick = tmp_path / "stick.note"
    made = told(capsys, "audit", "checkpoint", "--to", stick)
    assert (made["size"], made["origin"], made["path"]) == (10, "cloister/st-anna", str(stick))
    assert made["note"].encode() == stick.read_bytes()
    assert "witnessed at 10" in lines(capsys, "audit", "witness", stick)
    assert "intact up to entry 11, witnessed at 10" in lines(capsys, "audit", "verify")
    found = told(capsys, "audit", "verify")
    assert (found["ok"], found["intact"], found["witnessed"], found["damages"]) == (True, 11, 10, [])
    assert made["fingerprint"] in lines(capsys, "audit", "verify", stick)
    told_again = told(capsys, "audit", "verify", stick, "--key", KEY.public.hex())
    assert told_again["fingerprint"] == made["fingerprint"]
    assert "— cloister/st-anna " in lines(capsys, "audit", "checkpoint")
    assert "already" in lines(capsys, "audit", "checkpoint", "--to", stick, code=2)
    assert [e["what"] for e in told(capsys, "audit", "tail")["entries"]][-3:] == [
        "audit.checkpoint",
        "audit.witness",
        "audit.checkpoint",
    ]


def test_damage_is_an_error_that_names_the_entry(keyed: Home, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(keyed)
    said = lines(capsys, "audit", "verify", code=12)
    assert "error: The audit log is damaged: entry 4 was changed" in said and "try: Keep this" in said
    assert "intact up to entry 3" in said
    found = told(capsys, "audit", "verify", code=12)
    assert (found["ok"], found["intact"], found["error"]["code"]) == (False, 3, "log-damaged")
    assert [(one["kind"], one["first"]) for one in found["damages"]] == [("changed", 4)]


def test_an_export_for_an_auditor(keyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, key = tmp_path / "log.jsonl", tmp_path / "key.pem"
    made = told(capsys, "audit", "export", file, "--first", "3", "--last", "5")
    assert (made["first"], made["last"], made["size"]) == (3, 5, 10)
    assert "Entries 3 to 5 are in the log of cloister/st-anna." in lines(capsys, "audit", "verify", file)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = KEY.key.public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for given in (key, KEY.public.hex()):
        assert told(capsys, "audit", "verify", file, "--key", given)["last"] == 5
    assert "not signed" in lines(capsys, "audit", "verify", file, "--key", "00" * 31 + "01", code=4)
    for wrong, code in ((tmp_path / "none", 3), (file, 4), ("x" * 64, 3)):
        assert "error:" in lines(capsys, "audit", "verify", file, "--key", wrong, code=code)
    assert "same as in the file" in lines(capsys, "audit", "witness", file)
    file.write_text(file.read_text().replace("mira", "joe", 1))
    assert "Entry 3 in log.jsonl is not" in lines(capsys, "audit", "verify", file, code=12)
    assert "error:" in lines(capsys, "audit", "witness", file, code=12)
    assert "--key is for a file" in lines(capsys, "audit", "verify", "--key", KEY.public.hex(), code=2)


def test_an_auditor_needs_no_site(
    keyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.jsonl"
    told(capsys, "audit", "export", file)
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "auditor"))
    assert told(capsys, "audit", "verify", file, "--key", KEY.public.hex())["last"] == 10
    assert not (tmp_path / "auditor").exists()


def test_a_witness_names_what_was_rewritten(
    keyed: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    told(capsys, "audit", "export", file)
    spoil(keyed)
    assert "Entry 4 was changed here" in lines(capsys, "audit", "witness", file, code=12)


def test_without_keys(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "intact up to entry 0" in lines(capsys, "audit", "verify")
    file = tmp_path / "x"
    for words in (("checkpoint",), ("export", file), ("witness", file)):
        assert "cloister trust init" in lines(capsys, "audit", *words, code=2)
    assert "--key" in lines(capsys, "audit", "verify", file, code=2)
    assert not file.exists()
