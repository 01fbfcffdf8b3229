"""What is shown before a training or a quantising starts, and that what starts is what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from test_cli_train import PREVIEW
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.core.errors import ConfigWrong
from appliance.models import importing
from tui.app import Cloister
from tui.screens.deeds import deed_of, with_epsilon
from tui.screens.training import ConfirmTraining
from tui.steps import NextStep

TRAIN = NextStep(text="Train on inbox.", why="", command="cloister train inbox --base demo-base")
QUANTISE = NextStep(text="Quantise demo-base.", why="", command="cloister quantize demo-base")


def test_another_epsilon_is_planned_and_shown_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a.session(tmp_path)
    begun: list[dict[str, Any]] = []

    def plan(spec: dict[str, Any]) -> dict[str, Any]:
        limit = spec["settings"].get("epsilon", 8.0)
        return {**PREVIEW, "epsilon": {**PREVIEW["epsilon"], "run": limit - 0.5}}

    def start(spec: dict[str, Any]) -> str:
        begun.append(spec)
        return a.job(site.home, "train", "train inbox", process=a.me()).name

    monkeypatch.setattr("tui.screens.site.next_step", lambda *found, **facts: TRAIN)
    monkeypatch.setattr(site, "plan_training", plan)
    monkeypatch.setattr(site, "start_training", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Train on inbox." in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked, or the focus is elsewhere")
        assert "this run alone 7.50" in shown(app) and "what the budget allows" in shown(app)
        assert all(len(line) == 80 for line in lines(app))
        await pilot.press("up", *"-1", "enter")
        await until(pilot, lambda: "must be a number above 0" in shown(app), "a wrong epsilon is not told")
        await pilot.press("backspace", "backspace", "3", "enter")
        await until(pilot, lambda: "this run alone 2.50" in shown(app), "not planned again")
        assert isinstance(app.screen, ConfirmTraining) and len(app.screen_stack) == 2
        assert app.screen.query_one(Input).value == "3"
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "the focus is not on Cancel again")
        await pilot.press("up", "enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "Enter in the field started it")
        await pilot.press("up", "backspace", "5", "tab", "tab", "enter")
        await until(pilot, lambda: "this run alone 4.50" in shown(app), "started without its plan")
        assert begun == []
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "the focus is elsewhere")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "Home > 0001 train inbox" in shown(app), "not started")
        assert begun == [{"dataset": "inbox", "base": "demo-base", "settings": {"epsilon": 5.0}}]

    screens(site, act)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "1,5"])
def test_an_epsilon_that_is_none_is_refused(text: str) -> None:
    deed = deed_of(TRAIN)
    with pytest.raises(ConfigWrong):
        with_epsilon(deed, text)
    assert with_epsilon(deed, " 8 ").epsilon == 8.0 and with_epsilon(deed, " ") == deed


def test_a_quantising_is_asked_for_with_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = a.session(tmp_path)
    importing.import_base(site.home, importing.DEMO_BASE, "demo-base", who="t")
    begun: list[dict[str, Any]] = []

    def start(spec: dict[str, Any]) -> str:
        begun.append(spec)
        return a.job(site.home, "quantize", "quantise demo-base", process=a.me()).name

    monkeypatch.setattr("tui.screens.site.next_step", lambda *found, **facts: QUANTISE)
    monkeypatch.setattr(site, "start_quantising", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Quantise demo-base." in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked", 60.0)
        told = shown(app)
        assert "bits/weight" in told and "about 18.3 MB" in told and "19 x Q4_K, 3 x Q6_K" in told
        assert all(len(line) == 80 for line in lines(app))
        await pilot.press("escape")
        await until(pilot, lambda: "[ Cancel ]" not in shown(app), "not left")
        assert begun == []
        await pilot.press("enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked again", 60.0)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "0001 quantise demo-base" in shown(app), "not started")
        assert begun == [{"model": "demo-base", "types": ["Q4_K_M", "Q8_0"]}]

    screens(site, act)
