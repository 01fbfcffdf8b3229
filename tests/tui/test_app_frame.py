"""The frame of the screens: nine numbered ones, each says what it is for while it is empty."""

from __future__ import annotations

import sys
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Input

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support as people

from appliance.core.errors import NeedsApproval
from appliance.core.home import open_home
from appliance.security.people.guard import require
from tui.app import Cloister
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.home import HomeScreen
from tui.screens.home_lines import waiting_lines
from tui.screens.jobs import JobsScreen
from tui.session import Session
from tui.widgets.frame import SCREENS, screens_text
from tui.widgets.pane import Pane

EMPTY = {
    "Data": "No data yet.",
    "Train": "No training yet.",
    "Evaluate": "No reports yet.",
    "Models": "Press i to bring one in",
    "Serve": "No endpoint runs.",
    "Sites": "No federation yet.",
    "Privacy": "No budget used yet.",
    "Audit": "The log is empty.",
}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


def test_a_new_site_says_what_to_do_on_every_screen(tmp_path: Path) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Import your records" in shown(app), "no next step")
        assert "No jobs yet." in shown(app) and "No budget used yet." in shown(app)
        assert all(len(line) == 80 for line in lines(app)) and len(lines(app)) == 24
        await pilot.press("enter")
        assert isinstance(app.screen, FormWindow) and "[Enter: import]" in shown(app)
        await until(pilot, lambda: "Import records" in shown(app), "no form")
        await pilot.press("escape", "j")
        await until(
            pilot, lambda: "Press 1 for Home: it names the next step." in shown(app), "jobs not empty"
        )
        assert "> Home > Jobs" in lines(app)[0]
        for number, (name, words) in enumerate(EMPTY.items(), 2):
            await pilot.press(str(number))
            await until(pilot, lambda words=words: words in shown(app), f"{name} is not empty")  # type: ignore[misc]
            assert f"> {name}" in lines(app)[0] and f"[{number} {name}]" in lines(app)[1]
            assert max(map(len, lines(app))) <= 80
        await pilot.press("6", "f")
        await until(pilot, lambda: "No feedback yet." in shown(app), "feedback not empty")

    screens(a.session(tmp_path), act)


def test_digits_switch_screens_but_not_while_typing(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)
    a.training(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("3", "1", "j")
        assert isinstance(app.screen, JobsScreen)
        await until(pilot, lambda: "import notes" in shown(app), "no list")
        await pilot.press("slash", "0", "1", "3", "q", "question_mark", "colon", "slash")
        assert isinstance(app.screen, JobsScreen) and app.screen.query_one(Input).value == "013q?:/"
        await until(pilot, lambda: "Nothing matches '013q?:/'" in shown(app), "not filtered")
        app.screen.query_one(Input).value = "notes"
        await pilot.press("enter")
        await until(pilot, lambda: "train inbox" not in shown(app), "not filtered")
        assert "import notes" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: "train inbox" in shown(app), "the filter stays")
        await pilot.press("escape")
        assert isinstance(app.screen, HomeScreen)

    screens(site, act)


def test_the_screen_line_fits_any_width() -> None:
    for width in (40, 70, 80, 200):
        for _, mode, name in SCREENS:
            line = screens_text(mode, width).plain
            assert len(line) <= width and f"{name}]" in line
            assert all(key in line for key, _, _ in SCREENS)


def test_a_pane_is_as_high_as_its_text_at_every_size(tmp_path: Path) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Import your records" in shown(app), "no next step")
        for width in (90, 71, 120, 70):
            await pilot.resize_terminal(width, 20)
            pane = app.screen.query_one("#step", Pane)
            await until(
                pilot,
                lambda pane=pane: pane.content_size.height == len(str(pane.content).splitlines()),  # type: ignore[misc]
                f"wrong at {width}: {lines(app)[2:9]}",
            )

    screens(a.session(tmp_path), act)


def test_m_makes_the_part_with_the_focus_large_and_esc_small_again(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)
    a.models(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "import notes" in shown(app), "nothing read")
        app.screen.query_one("#jobs").focus()
        await pilot.press("m")
        await until(pilot, lambda: "Next step" not in shown(app), "not large")
        text = lines(app)
        assert "─ Jobs ─" in text[1] and text[22].startswith("└") and {len(line) for line in text} == {80}
        assert "> Home" in text[0] and "import notes" in text[2] and "Leave" in text[23]
        await pilot.press("escape")
        await until(pilot, lambda: "Next step" in shown(app), "not small again")
        assert "From data to answer" in shown(app)
        await pilot.press("5")
        await until(pilot, lambda: "lora-0002" in shown(app) and "Lineage" in shown(app), "no models")
        await pilot.press("m")
        await until(pilot, lambda: "Lineage" not in shown(app), "the list is not large")
        await pilot.press("slash", "m", "m")
        assert app.screen.query_one(Input).value == "mm"  # a letter while typing
        await pilot.press("escape", "escape")  # small again, then the filter away
        await until(pilot, lambda: "Lineage" in shown(app), "esc does not restore")
        await pilot.press("question_mark")
        await until(pilot, lambda: "Maximise" in shown(app), "no help")

    screens(site, act)


def test_home_says_what_waits_for_people(tmp_path: Path) -> None:
    home = open_home(tmp_path / "site")
    people.settle_in(home)
    with pytest.raises(NeedsApproval):
        require(home, people.actor(home, "ana"), "bundle.export", "lora-0002", content={"to": "North"})

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "! requests to sign: 1, press 9 r" in shown(app), "not told")
        assert "nothing waits" not in shown(app)

    screens(Session(home.path, signer=people.signer("olga")), act)
    assert waiting_lines(["RED: a"], 0) == ["! emergencies to review: 1, press 9 u"]
