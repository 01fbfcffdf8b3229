"""Federations on screen: let in by words, dropped by name; rounds paused, refused, left for good."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Button, Input

from appliance.security.trust import store
from appliance.security.trust.identity import public
from federated import papers, rules, standing, stick
from federated.flower.frames import Frame, unpacked
from federated.place import names
from tui.app import Cloister
from tui.screens.federation import SiteScreen
from tui.screens.federation_lines import model_lines, refused_lines, round_title, site_cells
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import ConfirmName, Words
from tui.widgets.pick import Pick

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "federated"))
from enrol_support import approved, coordinator, hospital


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


async def filled(app: Cloister, pilot: Pilot[None], *texts: str) -> None:
    """Type into the fields of a form, and send it."""
    await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
    for field, text in zip(app.screen.query(Input), texts, strict=False):
        field.value = text
    app.screen.query_one("#do", Button).press()
    await pilot.pause()


async def sure(app: Cloister, pilot: Pilot[None], name: str) -> None:
    """Type the name that is asked for; a wrong one does nothing."""
    await until(pilot, lambda: isinstance(app.screen, ConfirmName), "not asked")
    field, button = app.screen.query_one(Input), app.screen.query_one("#do", Button)
    field.value = f"{name}x"
    button.press()
    await pilot.pause()
    assert isinstance(app.screen, ConfirmName)
    field.value = name
    button.press()


def test_a_coordinator_lets_a_site_in_by_its_words_and_drops_it_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = coordinator(tmp_path, monkeypatch)
    request = tmp_path / "anna.request"
    request.write_bytes(hospital(tmp_path, "anna").request())
    words = papers.request_words(request.read_bytes())

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7")
        await until(pilot, lambda: "coordinator" in shown(app), "not listed")
        await pilot.press("enter")
        await until(pilot, lambda: "No sites yet." in shown(app), "not open")
        assert "0 of 2 rounds done" in shown(app) and "not started" in shown(app)
        await pilot.press("n")
        await filled(app, pilot, str(request), "one two three four five six seven eight")
        await until(pilot, lambda: "not the words of the request" in shown(app), "no refusal")
        assert standing.agreed(hub.place).sites == []
        assert app.screen.query_one("#field-request", Input).value == str(request)  # it comes back as it was
        await filled(app, pilot, str(request), words)
        await until(pilot, lambda: isinstance(app.screen, Words) and "anna is in" in shown(app), "not let in")
        await until(pilot, lambda: hub.words.split()[0] in shown(app), "no words")
        assert request.with_suffix(".kit").is_file()
        await pilot.press("escape")
        await until(pilot, lambda: "anna" in shown(app) and "away" in shown(app), "not shown")

        await pilot.press("d")
        await filled(app, pilot)
        await sure(app, pilot, "anna")
        await until(pilot, lambda: "dropped" in shown(app), "not dropped")

    screens(a.session(hub.home.path), act)
    assert [(one.name, one.state) for one in standing.agreed(hub.place).sites] == [("anna", "dropped")]


def test_a_site_joins_pauses_refuses_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, anna = coordinator(tmp_path, monkeypatch), hospital(tmp_path, "anna")
    kit = tmp_path / "anna.kit"
    kit.write_bytes(approved(hub, anna.request()).kit)
    anna.join(kit.read_bytes())

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7")
        await until(pilot, lambda: "north" in shown(app), "not listed")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SiteScreen), "not open")
        await until(pilot, lambda: "No round was asked of this site yet." in shown(app), "not read")
        assert "epsilon at most 8 per patient" in shown(app)
        await pilot.press("p")
        await until(pilot, lambda: rules.kept(anna.place).paused, "not paused")
        await until(pilot, lambda: "PAUSED" in shown(app), "not shown")
        await pilot.press("p")
        await until(pilot, lambda: not rules.kept(anna.place).paused, "not resumed")
        await pilot.press("v")
        await filled(app, pilot, "2")
        await until(pilot, lambda: rules.kept(anna.place).vetoed == [2], "not refused")
        await until(pilot, lambda: "vetoed rounds: 2" in shown(app), "not shown")
        await pilot.press("d")
        await sure(app, pilot, "north")
        await until(pilot, lambda: "LEFT" in shown(app), "not left")

    screens(a.session(anna.home.path), act)
    assert standing.noted(anna.place).left


@pytest.mark.slow
def test_a_federation_is_begun_with_its_key_on_a_stick_and_lets_a_site_in_by_it(tmp_path: Path) -> None:
    hub, anna = hospital(tmp_path, "hub"), hospital(tmp_path, "anna")
    key, request, good = tmp_path / "north.key", tmp_path / "anna.request", "seven quiet rivers run"

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7")
        await until(pilot, lambda: "A coordinator begins one: press n" in shown(app), "not there")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.pause()
        app.screen.query_one("#field-authority", Pick).action_turn(1)
        typed = ("north", "127.0.0.1:8443", "2", "2", "4", str(key), good)
        await filled(app, pilot, *typed, "another one of these")
        await until(pilot, lambda: "not the same" in shown(app), "two passphrases were taken for one")
        assert names(hub.home) == [] and not key.exists()
        await filled(app, pilot, *typed, good)
        await until(pilot, lambda: "north is begun" in shown(app), "not begun")
        assert hub.words.split()[0] in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: "coordinator" in shown(app), "not listed")
        request.write_bytes(anna.request())
        words = papers.request_words(request.read_bytes())
        await pilot.press("enter")
        await until(pilot, lambda: "No sites yet." in shown(app), "not open")
        await pilot.press("n")
        await filled(app, pilot, str(request), words, str(key), "a wrong passphrase")
        await until(pilot, lambda: "not the passphrase" in shown(app), "another passphrase opened it")
        assert standing.agreed(hub.place).sites == []
        assert app.screen.query_one("#field-passphrase", Input).value == ""
        await filled(app, pilot, str(request), words, str(key), good)
        await until(pilot, lambda: "anna is in" in shown(app), "not let in")

    screens(a.session(hub.home.path), act)
    made = standing.agreed(hub.place)
    assert (made.rounds.count, made.rounds.quorum, made.rounds.min_cohort) == (2, 2, 2)
    assert (made.training.epsilon, made.training.unit, made.task.labels) == (4.0, "patient", ["a", "b"])
    assert key.is_file() and not hub.place.authority_key.exists()
    assert [one.name for one in made.sites] == ["anna"]


def test_a_round_goes_by_stick_from_screen_to_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, anna = coordinator(tmp_path, monkeypatch), hospital(tmp_path, "anna")
    anna.join(approved(hub, anna.request()).kit)
    for one, other in ((hub, anna), (anna, hub)):
        card = public(standing.own_keys(other.home))
        store.pin(one.home, card, words=card.words, compared_by=["ana", "joe"], who="ana")
    asked = {"what": "ask", "sites": ["anna"], "ref": 1, "head": {"round": 1}}
    stick.put(hub.place.stick, "out", "anna", Frame(head=asked, body=b"adapter"))
    file = tmp_path / "round.clb"

    async def export(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7", "enter")
        await until(pilot, lambda: "away" in shown(app), "not open")
        await pilot.press("e")
        await filled(app, pilot, str(file))
        await until(pilot, lambda: "Round 1 is written" in shown(app), "not written")

    async def bring_in(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7", "enter")
        await until(pilot, lambda: isinstance(app.screen, SiteScreen), "not open")
        for said in ("Press s to start.", "already"):  # the second time it is refused
            await until(pilot, lambda: "e Carry" in shown(app), "no key for it")
            await pilot.press("e", "right")
            await filled(app, pilot, "", str(file))
            await until(pilot, lambda said=said: said in shown(app), f"not told: {said}")
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, SiteScreen), "not closed")

    screens(a.session(hub.home.path), export)
    assert "anna" in stick.HubStick(None, hub.place.stick).carried  # type: ignore[arg-type]
    screens(a.session(anna.home.path), bring_in)
    there = unpacked((anna.place.stick / "in" / "coordinator.frame").read_bytes())
    assert (there.head, there.body) == ({"what": "asked", "head": {"round": 1}}, b"adapter")


def test_a_federation_ends_by_its_name_and_by_the_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, anna = coordinator(tmp_path, monkeypatch), hospital(tmp_path, "anna")
    anna.join(approved(hub, anna.request()).kit)
    notice = tmp_path / "north.notice"

    async def end(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7", "enter")
        await until(pilot, lambda: "0 of 2 rounds done" in shown(app), "not open")
        await pilot.press("f")
        await filled(app, pilot, str(notice))
        await until(pilot, lambda: "2 of 2 rounds are left" in shown(app), "not said")
        await sure(app, pilot, "north")
        await until(pilot, lambda: "north has ended" in shown(app), "not ended")
        await pilot.press("escape")
        await until(pilot, lambda: "Ended after 0 of 2 rounds" in shown(app), "not shown")

    async def hear(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("7", "enter")
        await until(pilot, lambda: "epsilon at most 8 per patient" in shown(app), "not open")
        await pilot.press("n")
        await filled(app, pilot, str(notice))
        await until(pilot, lambda: "north has ended" in shown(app), "not believed")

    screens(a.session(hub.home.path), end)
    screens(a.session(anna.home.path), hear)
    assert standing.agreed(hub.place).ended and standing.agreed(anna.place).ended
    assert not hub.place.authority_key.exists()


def found(**changed: Any) -> dict[str, Any]:
    agreed = {"rounds": 10, "ended": False}
    return {"agreement": agreed, "round": None, "rounds": [], "refused": []} | changed


def test_rounds_in_words() -> None:
    now = datetime(2026, 11, 27, 9, tzinfo=UTC)
    running = {
        "round": 4,
        "step": "gathers updates",
        "waiting_for": ["b"],
        "deadline": (now + timedelta(seconds=390)).isoformat(),
        "refused": {},
    }
    title = "Round 4 of 10  gathers updates  waits for 1 site  time left 06:30"
    assert round_title(found(round=running), now) == title
    over = running | {"waiting_for": [], "refused": {"b": "disk"}}
    assert "all have answered, 1 not taken  time left 00:00" in round_title(
        found(round=over), now + timedelta(hours=1)
    )
    assert round_title(found(), now) == "0 of 10 rounds done"
    done = {
        "round": 3,
        "sites": ["a", "c"],
        "loss": 1.5,
        "seconds": 2.0,
        "refused": {"b": {"code": "disk", "why": "the disk of the site is full"}},
    }
    lines = model_lines(found(rounds=[done]), 60, 5)
    assert lines == ["   3  2 sites  loss 1.5000  2.0 s", "      without b: the disk of the site is full"]
    assert model_lines(found(rounds=[done] * 9), 60, 3)[-1] == lines[-1]
    assert model_lines(found(), 60, 5) == ["no round is done yet"]
    no = {"at": "2026-11-27T09:00:01", "site": "b", "from": None, "why": "late", "next": "look", "times": 3}
    assert refused_lines(found(refused=[no]), 60, 3) == ["09:00:01 b: late (3 times); look"]
    site = {
        "site": "b", "state": "in", "online": False, "records": None, "seconds": None, "round": None,
        "seen": "2026-11-25T08:00:00", "last": None,
    }  # fmt: skip
    assert site_cells(site) == ("b", "away", "-", "-", "-", "11-25 08:00", "-")
