"""cloister init, people, approve: as people type it, with and without a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support as site

from appliance.core.home import Home
from appliance.core.vaulted import MAGIC
from appliance.security.passphrase import Cost
from appliance.security.people import mode, persons
from appliance.security.vault import unlocking
from tui.cli import asking
from tui.cli.entry import run


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.session_people.calibrated", lambda: Cost())


@pytest.fixture
def cloister(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Runs a command as somebody: the exit code, the JSON object, what people read."""

    def said(*words: str, who: str | None = None, json_: bool = True) -> tuple[int, Any, str]:
        monkeypatch.delenv(asking.FILE, raising=False)
        if who is not None:
            monkeypatch.setenv(asking.FILE, str(file(tmp_path, who)))
            words = (*words, "--as", who)
        code = run([*words, *(["--json"] if json_ else [])])
        out, err = capsys.readouterr()
        lines = (err if json_ else out).splitlines()
        assert all(len(line) <= 80 for line in lines if not line.startswith(("error:", "try:")))
        return code, json.loads(out) if json_ and out else None, err if json_ else out

    yield said
    unlocking.lock(home)  # `init` leaves its key agent running


def file(folder: Path, name: str) -> Path:
    """A file with the person's passphrase, for that account alone."""
    path = folder / f"{name}.txt"
    path.write_text(site.passphrase(name) + "\n")
    path.chmod(0o600)
    return path


def init(folder: Path) -> list[str]:
    people = [("sam", "security-admin"), ("olga", "privacy-officer")]
    words = ["init", "--site", "St. Anna"]
    for name, role in people:
        words += ["--person", f"{name}:{role}", "--passphrase-file", f"{name}={file(folder, name)}"]
    return words


def test_a_site_is_made_people_are_added_and_two_approve(home: Home, tmp_path: Path, cloister: Any) -> None:
    code, made, told = cloister(*init(tmp_path))
    assert code == 0 and made["mode"] == "people" and "cloister people add NAME operator" in told
    assert made["were_plain"] == 0 and "old blocks" not in " ".join(told.split())
    assert home.identity.read_bytes().startswith(MAGIC)
    assert [one["name"] for one in made["people"]] == ["sam", "olga"]
    assert cloister("data", "list")[0] == 13  # nobody is signed in
    code, asked, told = cloister(
        "people", "add", "ana", "operator", "--passphrase-file", str(file(tmp_path, "ana")), who="sam"
    )
    assert code == 0 and asked["state"] == "pending" and f"cloister approve yes {asked['id']}" in told
    assert [one["id"] for one in cloister("approve", "list", who="olga")[1]["requests"]] == [asked["id"]]
    shown = cloister("approve", "show", asked["id"], who="olga")
    assert shown[1]["content"]["role"] == "operator" and "operator" in shown[2]
    code, answered, _ = cloister("approve", "yes", asked["id"], who="olga")
    assert code == 0 and answered["state"] == "used"
    code, told, _ = cloister("people", "list", who="ana")
    assert [(one["name"], one["role"]) for one in told["people"]][-1] == ("ana", "operator")
    assert told["you"] == "ana" and "signatures of two people" in told["statement"]
    assert cloister("data", "list", who="ana")[0] == 0
    code, error, _ = cloister("key", "new", "--for", "dms", who="ana")
    assert code == 13 and "security-admin" in error["error"]["message"]
    assert cloister("key", "new", "--for", "dms", who="sam")[0] == 0


def test_a_refused_request_is_over(home: Home, cloister: Any) -> None:
    site.settle_in(home)
    asked = cloister("people", "role", "ana", "auditor", who="sam")[1]
    assert cloister("approve", "no", asked["id"], who="olga")[1]["state"] == "refused"
    assert cloister("approve", "list", who="olga")[1]["requests"] == []
    assert cloister("approve", "list", "--all", who="olga")[1]["requests"][0]["refused"] == ["olga"]
    assert cloister("approve", "yes", asked["id"], who="olga")[0] == 2
    assert cloister("approve", "yes", asked["id"], who="ana")[0] == 13
    assert cloister("approve", "show", "00000000", who="ana")[0] == 3
    assert cloister("people", "remove", "olga", who="sam")[0] == 2


def test_the_wrong_passphrase_gets_nothing(home: Home, cloister: Any, tmp_path: Path) -> None:
    site.settle_in(home)
    site_file = file(tmp_path, "ana")
    site_file.write_text("the wrong words 1 2 3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(asking.FILE, str(site_file))
        assert run(["job", "list", "--as", "ana"]) == 13
        site_file.chmod(0o640)
        assert run(["job", "list", "--as", "ana"]) == 2
    assert persons.states(home)["ana"]["failed"] == 1
    assert run(["job", "list", "--as", "ana"]) == 2  # nobody can be asked


def test_a_passphrase_is_changed(home: Home, cloister: Any, tmp_path: Path) -> None:
    site.settle_in(home)
    (tmp_path / "new.txt").write_text("other words that are 4 long\n")
    (tmp_path / "new.txt").chmod(0o600)
    assert cloister("people", "passphrase", "--passphrase-file", str(tmp_path / "new.txt"), who="ana")[0] == 0
    assert cloister("job", "list", who="ana")[0] == 13


def test_an_emergency_is_red_until_the_officer_has_looked(home: Home, cloister: Any) -> None:
    site.settle_in(home)
    reason = "no operator on the night shift, endpoint down"
    assert cloister("route", "rollback", "desk", who="aude")[0] == 13
    case = cloister("people", "break-glass", "--reason", reason, "--minutes", "5", who="aude")[1]
    assert cloister("route", "rollback", "desk", who="aude")[0] == 3  # allowed now; there is no such route
    assert cloister("people", "end-emergency", who="aude")[0] == 0
    assert "RED: aude acted as operator" in cloister("job", "list", who="ana")[2]  # whatever is asked
    told = cloister("people", "list", who="ana", json_=False)[2]
    assert "RED: emergency" in told and reason in told
    assert cloister("people", "review", case["id"], who="ana")[0] == 13
    assert cloister("people", "review", case["id"], who="olga")[1]["state"] == "reviewed"
    assert "RED" not in cloister("people", "list", who="ana")[2]


def test_without_a_terminal_an_error_says_which_flags(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, flags in (
        ([], ("--site NAME", "--person NAME:ROLE", "--single-person")),
        (["--site", "x"], ("--person NAME:ROLE", "--single-person")),
        (["--site", "x", "--person", "sam:security-admin"], ("--passphrase-file sam=FILE",)),
        (["--site", "x", "--person", "sam:boss"], ("privacy-officer",)),
        (["--site", "x", "--single-person", "--person", "sam:auditor"], ("Leave --person",)),
        (["--site", "x", "--passphrase-file", "sam", "--single-person"], ("NAME=FILE",)),
    ):
        assert run(["init", *words]) == 2
        told = capsys.readouterr().err
        assert all(flag in told for flag in flags), told
    assert mode.anchor(home) is None


def test_a_single_person_says_so_and_can_become_people_but_not_back(
    home: Home, tmp_path: Path, cloister: Any
) -> None:
    code, made, _ = cloister("init", "--site", "Lone", "--single-person")
    assert code == 0 and made["mode"] == "single-person" and "no second person approved" in made["statement"]
    assert cloister("people", "list")[1]["people"] == []
    assert cloister("approve", "list")[1]["requests"] == []
    assert cloister("people", "remove", "sam")[0] == 13
    assert cloister("people", "list", who="sam")[0] == 2
    assert not home.identity.read_bytes().startswith(MAGIC)
    code, made, told = cloister(*init(tmp_path))
    assert made["mode"] == "people" and home.identity.read_bytes().startswith(MAGIC)
    assert made["were_plain"] == 1 and "old blocks" in " ".join(told.split())
    code, error, _ = cloister("init", "--site", "Lone", "--single-person")
    assert code == 2 and "its people already" in error["error"]["message"]


def test_the_table_of_rights_needs_nobody_and_fits(home: Home, cloister: Any) -> None:
    site.settle_in(home)
    code, told, lines = cloister("people", "rights")
    assert code == 0 and {"action", "roles", "two_people", "words"} <= set(told["rights"][0])
    row = next(line for line in lines.splitlines() if line.startswith("bundle.export"))
    assert row.split()[1:4] == ["x", "x", "2"]
    cloister("people", "rights", json_=False)


def test_a_card_says_who_checked_whom_when_it_was_made(home: Home, cloister: Any, tmp_path: Path) -> None:
    from appliance.models import registry
    from tui.screens.model_lines import card_text
    from tui.screens.site import look
    from tui.session import Session

    lone = mode.statement(home)
    assert lone.startswith("single-person mode: no second person approved")
    model = registry.Model(name="lora-1", kind="adapter", path=tmp_path, sha256="0", size=1)
    registry.add(home, model, who="mira")
    code, told, lines = cloister("model", "card", "lora-1")
    assert code == 0 and told["people"] == lone and "no second person approved" in lines
    session = Session(home.path)
    assert lone in card_text([model], look(session, 0.0, 10))
    site.settle_in(home)  # which has no such model
    session = Session(home.path, signer=site.signer("ana"))
    assert "signatures of two people" in session.people()
    made_alone = registry.Model(
        name="lora-2", kind="adapter", path=tmp_path, sha256="0", size=1, facts={"people": lone}
    )
    assert session.people([made_alone]) == lone
