"""Train: the form, its plan, and that what starts is what was asked; nothing typed is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from test_cli_train import PREVIEW
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.core.errors import ConfigWrong, NeedsApproval
from appliance.train.settings import Settings, settings_from
from tui.app import Cloister
from tui.cli.train_options import OPTIONS
from tui.fields import answers
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import Confirm, Words
from tui.screens.training import ConfirmTraining
from tui.screens.training_fields import Choices, spec_from, training_fields
from tui.screens.training_form import typed
from tui.widgets.pick import Pick

THERE = Choices(datasets=("inbox@2", "inbox@1"), bases=("demo-base", "other"))


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


def test_untouched_the_form_is_the_usual_training() -> None:
    fields = training_fields(THERE)
    spec = spec_from(answers(fields, {}))
    assert (spec["dataset"], spec["version"], spec["base"]) == ("inbox", 2, "demo-base")
    assert settings_from(spec["settings"]) == Settings() and "name" not in spec
    more = spec_from(answers(fields, {"more": "yes"}))
    assert settings_from(more["settings"]) == Settings()


def test_every_option_of_the_command_is_in_the_form() -> None:
    keys = {field.key for field in training_fields(THERE)}
    assert set(OPTIONS) - {"no_privacy"} <= keys
    assert {"over", "trials", "public"} <= {field.key for field in training_fields(THERE, search=True)}


def test_what_is_chosen_is_in_the_spec_and_what_is_out_of_range_is_refused() -> None:
    fields = training_fields(THERE)
    wanted = {
        "private": "no",
        "epsilon": "4",  # not asked without privacy
        "name": "desk",
        "more": "yes",
        "weight_decay": "0",
        "freeze_a": "no",
        "targets": "q_proj, k_proj",
        "checkpointing": "yes",
    }
    found = answers(fields, wanted)
    settings = spec_from(found)["settings"]
    assert settings["private"] is False and "epsilon" not in settings
    assert (settings["weight_decay"], settings["freeze_a"], settings["checkpointing"]) == (0, False, True)
    assert settings["targets"] == ["q_proj", "k_proj"] and spec_from(found)["name"] == "desk"
    assert answers(fields, typed(found)) == found
    with pytest.raises(ConfigWrong, match="rank"):
        spec_from(answers(fields, {"rank": "5000"}))
    with pytest.raises(ConfigWrong, match="no dataset"):
        training_fields(Choices(datasets=(), bases=("demo-base",)))
    with pytest.raises(ConfigWrong, match="no base"):
        training_fields(Choices(datasets=("inbox@1",), bases=()))


def test_form_plan_start_and_a_plan_that_is_refused_brings_the_form_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a.session(tmp_path)
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr("tui.screens.training_form._there", lambda site: THERE)

    def plan(spec: dict[str, Any]) -> dict[str, Any]:
        if spec["settings"]["epsilon"] > 8:
            raise ConfigWrong("inbox has 8.00 left.", "Take a smaller epsilon.")
        return PREVIEW

    def start(spec: dict[str, Any]) -> str:
        begun.append(spec)
        return a.job(site.home, "train", "train inbox", process=a.me()).name

    monkeypatch.setattr(site, "plan_training", plan)
    monkeypatch.setattr(site, "start_training", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Next step" in shown(app), "no Home")
        await pilot.press("3")
        await until(pilot, lambda: "No training yet." in shown(app), "not empty")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.press("right", "down", "down", "down", *"123", "down", "down", "backspace", "8")
        assert app.screen.query_one("#field-dataset", Pick).value == "inbox@1"
        await pilot.press("up", "up", "up", "up", "up", "up", "enter")  # to the button
        await until(pilot, lambda: "inbox has 8.00 left." in shown(app), "refusal not told")
        assert all(len(line) == 80 for line in lines(app))
        assert app.screen.query_one("#field-rank", Input).value == "8"
        epsilon = app.screen.query_one("#field-epsilon", Input)
        assert epsilon.value == "123.0"
        await pilot.press("down", "down", "down", *("backspace",) * 5, "4", "up", "up", "up", "up", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmTraining), "no plan")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "the focus is not on Cancel")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "0001 train inbox" in shown(app), "not started, or not shown")

    screens(site, act)
    (spec,) = begun
    assert (spec["dataset"], spec["version"], spec["base"]) == ("inbox", 1, "demo-base")
    assert (spec["settings"]["epsilon"], spec["settings"]["rank"]) == (4.0, 8)


def test_with_everything_shown_the_arrows_still_go_from_field_to_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.screens.training_form._there", lambda site: THERE)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Next step" in shown(app), "no Home")
        await pilot.press("3", "n")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.press(*("down",) * 8, "right", *("down",) * 31)
        await until(pilot, lambda: app.focused is not None and app.focused.id == "field-processes", "stuck")
        assert "Cancel" in shown(app) and "processes" in shown(app)

    screens(a.session(tmp_path), act)


def test_a_training_without_privacy_that_two_must_agree_to_is_told_in_words_and_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.screens.training_form._there", lambda site: THERE)
    site = a.session(tmp_path)

    def start(spec: dict[str, Any]) -> str:
        assert spec["settings"]["private"] is False
        raise NeedsApproval("Two people must agree to this.", "cloister approve 0001", request="0001")

    monkeypatch.setattr(site, "plan_training", lambda spec: PREVIEW)
    monkeypatch.setattr(site, "start_training", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Next step" in shown(app), "no Home")
        await pilot.press("3", "n")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.press("down", "down", "left", *("up",) * 3, "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "no plan")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, Words), "not told")
        assert "cloister approve 0001" in shown(app) and "9 Audit, key r" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: "No training yet." in shown(app), "something began")

    screens(site, act)
