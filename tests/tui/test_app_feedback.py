"""The feedback screen, driven by keys, on feedback that was really given."""

from __future__ import annotations

from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot

from appliance.serve.feedback import Answers, give
from tui.app import Cloister
from tui.screens.frame import Looking
from tui.session_feedback import list_feedback


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


def test_feedback_is_read_and_judged_on_screen(tmp_path: Path) -> None:
    site = a.session(tmp_path / "home")
    answers = Answers()
    for number in (1, 2):
        messages = [{"role": "user", "content": f"where is ward {number}?"}]
        answers.keep(f"answer-{number}", "k", model="inbox-q4", messages=messages, text="In the north.")
        said = {
            "answer_id": f"answer-{number}",
            "thumb": -1,
            "correction": "In the south.",
            "ratings": {"clear": 4},
        }
        give(site.home, answers, "k", said)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6", "f")
        await until(pilot, lambda: "inbox-q4" in shown(app), "no feedback")
        assert "down   - - 4  yes" in shown(app)
        assert "[6 Serve]" in shown(app) and "where is ward" not in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: "should have been" in shown(app), "not read")
        assert "In the south." in shown(app) and "clear: 4 of 5" in shown(app)
        await pilot.press("escape", "a")
        await until(pilot, lambda: "accepted" in shown(app), "not accepted")
        await pilot.press("down", "x")
        await until(pilot, lambda: "rejected" in shown(app), "not rejected")
        assert max(map(len, lines(app))) <= 80

    screens(site, act)
    assert sorted(each.state for each in list_feedback(site)) == ["accepted", "rejected"]
