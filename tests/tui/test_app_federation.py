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

from federated import papers, rules, standing
from tui.app import Cloister
from tui.screens.federation import CoordinatorScreen, SiteScreen
from tui.screens.federation_lines import model_lines, refused_lines, round_title, site_cells
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import ConfirmName, Words

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
        await until(pilot, lambda: "error" in shown(app).lower() or "words" in shown(app), "no refusal")
        assert standing.agreed(hub.place).sites == []
        while not isinstance(app.screen, CoordinatorScreen):
            await pilot.press("escape")
        await pilot.press("n")
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
