"""cloister audit: proofs of growth, who sent a prompt, and a damaged log begun anew; clock, rotation."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support as site

from appliance.core.db import transaction
from appliance.core.home import Home, open_home
from appliance.security import audit
from appliance.security.log.requests import RequestLog
from appliance.security.people import approvals
from tui.cli import asking
from tui.cli.entry import run
from tui.site_key import make_site_key

SECRET = "who-is-ill-7731"


@pytest.fixture
def keyed(home: Home) -> Home:
    make_site_key(home, "joe", "st-anna", "site")
    fill(home)
    return home


def fill(home: Home) -> None:
    with transaction(home) as link:
        for number in range(6):
            audit.record(link, who="mira", what="test", target=str(number))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def said(*words: object, code: int = 0, who: str | None = None) -> tuple[dict[str, Any], str]:
        """The JSON object and what people read."""
        monkeypatch.delenv(asking.FILE, raising=False)
        given = [str(word) for word in words]
        if who is not None:
            path = tmp_path / f"{who}.txt"
            path.write_text(site.passphrase(who) + "\n")
            path.chmod(0o600)
            monkeypatch.setenv(asking.FILE, str(path))
            given += ["--as", who]
        assert run([*given, "--json"]) == code, capsys.readouterr()
        out, err = capsys.readouterr()
        lines = [
            line for line in err.splitlines() if not line.startswith(("error:", "try:", "Proof from", "— "))
        ]
        assert [line for line in lines if len(line) > 80] == []
        return json.loads(out), err

    return said


# --- proofs of growth


def test_a_partner_checks_that_the_log_only_grew(
    keyed: Home, tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, proof = tmp_path / "held.note", tmp_path / "proof.json"
    made, _ = say("audit", "checkpoint", "--to", note)
    fill(keyed)
    told, text = say("audit", "prove-consistency", proof, "--from", made["size"])
    assert (told["from"], told["against"]) == (8, "signed") and "check-consistency" in text
    say("audit", "prove-consistency", proof, "--from", 8, code=2)
    say("audit", "prove-consistency", tmp_path / "x", "--from", 99, code=2)
    assert say("audit", "check-consistency", proof)[0]["size"] == told["size"]
    key = say("trust", "card")[0]["key"]
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "auditor"))
    found, text = say("audit", "check-consistency", proof, "--key", key, "--held", note)
    assert found["against"] == "held" and "GROWN" in text and not (tmp_path / "auditor").exists()
    say("audit", "check-consistency", proof, "--key", "00" * 31 + "01", code=4)
    say("audit", "check-consistency", note, "--key", key, code=4)
    spoilt = json.loads(proof.read_text())
    spoilt["proof"][0] = spoilt["root"]
    proof.write_text(json.dumps(spoilt, separators=(",", ":")) + "\n")
    told, _ = say("audit", "check-consistency", proof, "--key", key, code=12)
    assert told["error"]["code"] == "log-damaged"


# --- who asked this


def ask(home: Home, prompt: Any) -> None:
    log = RequestLog(home)

    async def asked() -> None:
        request, waiting = log.asked("key-1", "desk", prompt)
        await waiting
        log.answered(request, "key-1", "desk", route="", read=1, written=1)

    asyncio.run(asked())
    log.close()


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        (SECRET, SECRET),
        (SECRET, SECRET + "\n"),
        ([{"role": "user", "content": SECRET}], SECRET + "\n"),
        ([SECRET], SECRET),
        (
            [{"role": "system", "content": "be brief"}, {"role": "user", "content": SECRET}],
            json.dumps([{"content": "be brief", "role": "system"}, {"role": "user", "content": SECRET}]),
        ),
        (
            [{"role": "user", "content": SECRET}],
            json.dumps({"messages": [{"role": "user", "content": SECRET}]}),
        ),
    ],
)
def test_who_sent_a_prompt(
    keyed: Home, say: Any, monkeypatch: pytest.MonkeyPatch, sent: Any, given: str
) -> None:
    ask(keyed, sent)
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    told, text = say("audit", "find-prompt")
    assert [(one["key"], one["model"]) for one in told["requests"]] == [("key-1", "desk")] and "key-1" in text
    monkeypatch.setattr("sys.stdin", io.StringIO(given + "?"))
    assert say("audit", "find-prompt")[0]["requests"] == []
    entries = say("audit", "tail")[0]["entries"]
    assert [one.get("found") for one in entries if one["what"] == "audit.find"] == [1, 0]
    assert SECRET not in json.dumps(entries) and SECRET.encode() not in keyed.database.read_bytes()


def test_a_prompt_is_never_an_argument(keyed: Home, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert say("audit", "find-prompt", SECRET, code=2)[0]["error"]["code"] == "config-wrong"
    say("audit", "find-prompt", code=2)


def test_finding_is_for_those_who_check(home: Home, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settle_in(home)
    ask(home, SECRET)
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET))
    assert say("audit", "find-prompt", who="ana", code=13)[0]["error"]["code"] == "not-allowed"
    assert len(say("audit", "find-prompt", who="aude")[0]["requests"]) == 1


def test_prompts_of_days_long_past_are_found_by_nobody(
    keyed: Home, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no endpoint has run since, which would have deleted the days' keys."""
    ask(keyed, SECRET)
    for table, column in (("request_days", "day"), ("request_log", "at")):
        site.sql(keyed, f"UPDATE {table} SET {column} = '2026-01-02' || substr({column}, 11)")  # noqa: S608
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET))
    assert say("audit", "find-prompt")[0]["requests"] == []
    assert site.column(keyed, "SELECT day FROM request_days") == []


# --- a damaged log


def cut(home: Home) -> None:
    site.sql(home, "DELETE FROM audit_tree WHERE level = 0 AND place = (SELECT MAX(seq) - 1 FROM audit)")


def test_a_damaged_log_has_a_way_out(keyed: Home, tmp_path: Path, say: Any) -> None:
    old = tmp_path / "old.note"
    say("audit", "checkpoint", "--to", old)
    assert say("audit", "repair", "--because", "x y z", code=2)[0]["error"]["message"].endswith(
        "not damaged."
    )
    fill(keyed)
    cut(keyed)
    told, _ = say("trust", "init", "again", code=2)
    refused, text = say("audit", "verify", code=12)
    assert "cloister audit repair" in text and not refused["ok"]
    say("audit", "repair", code=2)
    told, text = say("audit", "repair", "--because", "bad sectors")
    assert told["done"] and "damaged-logs/1" in text
    found, text = say("audit", "verify")
    assert found["ok"] and "bad sectors" in text and found["renewals"][0]["number"] == 1
    assert "bad sectors" in say("people", "list")[0]["statement"]
    new = tmp_path / "new.note"
    assert say("audit", "checkpoint", "--to", new)[0]["origin"] == "cloister/st-anna.2"
    assert say("audit", "witness", new)[0]["set_aside"] is None
    back, text = say("audit", "witness", old)
    assert back["set_aside"]["number"] == 1 and "set aside on" in text
    assert say("audit", "verify")[0]["ok"]


def test_two_people_begin_a_log_anew(home: Home, say: Any) -> None:
    site.settle_in(home)
    fill(home)
    cut(home)
    say("audit", "repair", "--because", "bad sectors", who="ana", code=13)
    told, text = say("audit", "repair", "--because", "bad sectors", who="sam")
    assert not told["done"] and "privacy-officer" in text and told["agreed"] == ["sam"]
    say("audit", "repair", who="sam", code=2)
    told, text = say("audit", "repair", who="olga")
    assert told["done"] and "bad sectors" in text and sorted(told["agreed"]) == ["olga", "sam"]
    assert say("audit", "verify", who="aude")[0]["ok"]


# --- the clock


def test_the_clock_is_shown_and_repaired(home: Home, say: Any) -> None:
    told, text = say("clock", "status")
    assert told["state"] == "right" and told["vouched"] is None and "at least" in text
    with transaction(home) as link:
        site.vouch(link, int(time.time()) + 300 * 86_400)
    told, text = say("clock", "status")
    assert told["state"] == "behind" and "cloister clock repair" in text
    today = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    for wrong in ("2040-01-01", "yesterday"):
        say("clock", "repair", wrong, "--because", "a test", code=2)
    say("clock", "repair", today, "--because", "", code=2)
    assert say("clock", "repair", today, "--because", "a signer's clock ran ahead")[0]["repaired"]
    assert say("clock", "status")[0]["state"] == "right"


def test_two_people_repair_the_clock(home: Home, say: Any) -> None:
    site.settle_in(home)
    with transaction(home) as link:
        site.vouch(link, int(time.time()) + 300 * 86_400)
    repair = ("clock", "repair", time.strftime("%Y-%m-%d", time.gmtime()), "--because", "a test")
    assert say(*repair, who="ana", code=13)[0]["error"]["code"] == "not-allowed"
    assert say(*repair, who="sam", code=13)[0]["error"]["code"] == "needs-approval"
    (asked,) = approvals.pending(home)
    approvals.vote(home, asked.id, site.signer("olga"), yes=True)
    assert say(*repair, who="sam")[0]["state"] == "right"


# --- new keys


def test_a_site_is_given_new_keys(keyed: Home, say: Any) -> None:
    before = say("trust", "card")[0]
    made, text = say("trust", "rotate", "site", "--because", "yearly")
    assert made["key_epoch"] == 2 and made["before"] == before["key"] and made["words"] in text
    assert say("trust", "card")[0]["key"] == made["key"]
    say("audit", "checkpoint")
    assert say("audit", "verify")[0]["ok"]
    stolen, text = say("trust", "rotate", "site", "--because", "the stick is gone", "--stolen")
    assert stolen["key_epoch"] == 3 and f"old key  {made['key']}" in text


def test_a_person_is_given_a_new_key_by_two(home: Home, say: Any, tmp_path: Path) -> None:
    site.settle_in(home)
    file = tmp_path / "new.txt"
    file.write_text("four other words of ana\n")
    file.chmod(0o600)
    asked, _ = say("trust", "rotate", "person", "ana", "--passphrase-file", file, who="sam")
    assert asked["state"] == "pending" and asked["action"] == "person.reset"


def test_a_home_that_never_was_has_a_clock(tmp_path: Path, say: Any) -> None:
    assert say("clock", "status", "--home", tmp_path / "new")[0]["state"] == "right"
    assert open_home(tmp_path / "new").database.exists()
