"""The audit screen, its people and its requests, driven by keys on real sites."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support as people

from appliance.core.errors import NeedsApproval
from appliance.core.home import Home, open_home
from appliance.security.people import approvals, persons
from appliance.security.people.guard import require
from tui import session_bundle, session_people
from tui.app import Cloister
from tui.screens.audit_lines import entry_text, log_title, network_text
from tui.screens.frame import Looking
from tui.screens.modals import Confirm, ConfirmName, Words
from tui.session import Session


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.3)


def staffed(folder: Path) -> Home:
    """A site with four people, each with a role."""
    home = open_home(folder)
    people.settle_in(home)
    return home


def as_(home: Home, name: str) -> Session:
    return Session(home.path, signer=people.signer(name))


def asked(home: Home, target: str = "lora-0002") -> str:
    """A request of the operator for something that leaves the building."""
    with pytest.raises(NeedsApproval) as needs:
        require(
            home, people.actor(home, "ana"), "bundle.export", target, content={"to": "Branch North", "n": "9"}
        )
    return needs.value.request


def test_the_log_is_read_verified_and_written_out_signed(tmp_path: Path) -> None:
    site = a.session(tmp_path / "home")
    session_bundle.make_identity(site, "st-anna", "site")
    a.models(site.home)
    wanted, note = tmp_path / "out.log", tmp_path / "note"

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9")
        await until(pilot, lambda: "model.import" in shown(app) or "lora-0002" in shown(app), "no log")
        assert "not checked yet" in shown(app) and "One person runs this site." in shown(app)
        assert max(map(len, lines(app))) <= 80
        newest = site.audit_tail(1)[0]
        assert f"Entry {newest['seq']}" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Words), "not opened")
        for name in newest:
            assert name in ("seq", "at") or name in app.screen.text  # type: ignore[attr-defined]
        await pilot.press("escape", "v")
        await until(pilot, lambda: isinstance(app.screen, Words), "not verified")
        assert f"intact up to entry {newest['seq']}, witnessed by nobody yet" in app.screen.text  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: f"Log   OK to {newest['seq']}" in shown(app), "the border does not tell")
        for what, path in ((0, wanted), (1, note), (2, note)):
            await pilot.press("e")
            await until(pilot, lambda: "Signed log" in shown(app), "no form")
            await pilot.press(*["right"] * what, "down", *str(path), *["enter"] * 3, "down", "enter")
            await until(pilot, lambda: isinstance(app.screen, Words), "not written")
            text = app.screen.text  # type: ignore[attr-defined]
            assert ("fingerprint" in text) and (what != 2 or "The log extends it: witnessed at" in text)
            await pilot.press("escape")

    screens(site, act)
    assert wanted.is_file() and note.is_file()


def test_a_changed_entry_is_told_as_damage(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.models(site.home)
    row = json.dumps({"at": "2026-01-01T00:00:00+00:00", "who": "eve", "what": "nothing", "target": "-"})
    people.sql(site.home, "UPDATE audit SET entry = ? WHERE seq = 2", row)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9")
        await until(pilot, lambda: "nothing" in shown(app), "no log")
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, Words), "not verified")
        assert "DAMAGED" in shown(app) and "2" in app.screen.text  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: "Log   DAMAGED, intact to 1" in shown(app), "the border does not tell")

    screens(site, act)


def test_a_second_person_sees_all_of_a_request_and_signs_it(tmp_path: Path) -> None:
    home = staffed(tmp_path)
    request = asked(home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9")
        await until(pilot, lambda: "1 to answer: press r" in shown(app), "not told that one waits")
        assert "olga         privacy-officer" in shown(app)
        await pilot.press("r")
        await until(pilot, lambda: request in shown(app) and "bundle.export" in shown(app), "no list")
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "not asked")
        question = app.screen.question  # type: ignore[attr-defined]
        for words in ("lora-0002", "to: Branch North", "n: 9", "digest: ", "agreed: ana"):
            assert words in question, words
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "the focus is elsewhere")
        await pilot.press("enter")
        assert approvals.show(home, request).state == "pending", "Cancel signed"
        await pilot.press("y")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked again")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "lora-0002 is agreed to." in shown(app), "not told")
        await until(pilot, lambda: "approved" in shown(app), "the list does not follow")
        assert app.screen.check_action("answer", (True,)) is None, "it can be answered again"

    screens(as_(home, "olga"), act)
    found = approvals.show(home, request)
    assert (found.state, found.agreed) == ("approved", ("ana", "olga"))


def test_a_request_is_refused_and_who_asked_cannot_be_both(tmp_path: Path) -> None:
    home = staffed(tmp_path)
    request = asked(home)

    async def own(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9", "r")
        await until(pilot, lambda: request in shown(app), "no list")
        await pilot.press("y")
        await pilot.pause()
        assert not isinstance(app.screen, Confirm), "who has agreed may agree again"
        await pilot.press("question_mark")
        assert f"ana has agreed to {request} already" in app.screen.text  # type: ignore[attr-defined]

    async def refuse(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9", "r")
        await until(pilot, lambda: request in shown(app), "no list")
        await pilot.press("n")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "is refused. That ends it." in shown(app), "not told")
        await until(pilot, lambda: "Nobody is asked anything." in shown(app), "it is still there")
        await pilot.press("h")
        await until(pilot, lambda: "refused" in shown(app) and request in shown(app), "no history")

    screens(as_(home, "ana"), own)
    screens(as_(home, "olga"), refuse)
    assert approvals.show(home, request).state == "refused"


def test_a_person_is_added_by_form_and_a_second_signature(tmp_path: Path) -> None:
    home = staffed(tmp_path)
    phrase = people.passphrase("bea")

    async def ask(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9", "u")
        await until(pilot, lambda: "security-admin" in shown(app), "no people")
        await pilot.press("a")
        await until(pilot, lambda: "New person" in shown(app), "no form")
        await pilot.press(*"bea", "down", "right", "right", "down", *phrase, "enter", *"other", "enter")
        await pilot.press("down", "enter")
        await until(pilot, lambda: "are not the same" in shown(app), "typed in two ways and taken")
        assert phrase not in shown(app), "the passphrase is shown"
        app.screen.query_one("#field-again").value = phrase  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Words), "not asked for", 30)
        assert "person.add" in app.screen.text and phrase not in app.screen.text  # type: ignore[attr-defined]

    screens(as_(home, "sam"), ask)
    (waiting,) = session_people.requests(as_(home, "olga"))
    session_people.answer(as_(home, "olga"), waiting.id, yes=True)
    roster = persons.load(home)
    assert roster is not None and {one.name: one.role for one in roster.people}["bea"] == "auditor"


def test_removing_a_person_needs_the_name_and_keys_are_dim_for_who_may_not(tmp_path: Path) -> None:
    home = staffed(tmp_path)

    async def auditor(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9", "u")
        await until(pilot, lambda: "security-admin" in shown(app), "no people")
        for action in ("add", "role", "remove", "reset", "review"):
            assert app.screen.check_action(action, ()) is None, action
        assert app.screen.check_action("passphrase", ()) and app.screen.check_action("emergency", ())

    async def officer(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9", "u")
        await until(pilot, lambda: "security-admin" in shown(app), "no people")
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmName), "not asked")
        app.screen.query_one("#name").focus()
        await pilot.press(*"ana", "enter", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, Words), "not asked for")
        assert "person.remove  ana" in app.screen.text  # type: ignore[attr-defined]

    screens(as_(home, "aude"), auditor)
    screens(as_(home, "olga"), officer)


def test_an_emergency_is_red_until_it_is_reviewed(tmp_path: Path) -> None:
    home = staffed(tmp_path)
    session_people.break_glass(as_(home, "sam"), "the ward's endpoint is down", 30)
    session_people.end_emergency(as_(home, "sam"))

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("9")
        await until(pilot, lambda: "RED: sam as operator, over" in shown(app), "not red")
        await pilot.press("u")
        await until(pilot, lambda: "the ward's endpoint is down" in shown(app), "not listed")
        await pilot.press("v")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "reviewed by olga" in shown(app), "not reviewed")

    screens(as_(home, "olga"), act)
    assert session_people.alarms(as_(home, "olga")) == []


def test_what_the_lines_say() -> None:
    entry = {
        "seq": 3,
        "at": "2026-01-01T10:00:00",
        "who": "a",
        "what": "b",
        "target": "c",
        "open": [],
        "n": 1,
    }
    assert entry_text(entry, 40).splitlines() == [
        "when    2026-01-01T10:00:00",
        "who     a",
        "what    b",
        "target  c",
        "open    none",
        "n       1",
    ]
    assert log_title({"ok": False, "intact": 7}, "10:00") == "Log   DAMAGED, intact to 7   checked 10:00"
    way = {"title": "TCP to a name", "control": "open", "result": "open"}
    found = {"ways": [way], "passed": False, "policy": "off", "files": False, "line": "12 of 12 shut"}
    text = network_text(found, 60)
    assert text.startswith("OPEN: TCP to a name.") and "WARNING" in text and "LEFT OPEN" in text
