"""Forms: what may be answered, and the window that asks, with the keys alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot

from appliance.core.errors import ConfigWrong
from tui.app import Cloister
from tui.fields import Field, answers, by_title
from tui.screens.form import FormWindow
from tui.screens.modals import ConfirmName

FIELDS = (
    Field(key="name", title="Name", help="What it is called.", needed=True),
    Field(
        key="epsilon",
        title="Epsilon",
        help="How much may be told of one patient.",
        kind="number",
        default="8",
    ),
    Field(key="method", title="Method", help="What is trained.", kind="choice", choices=("lora", "full")),
    Field(key="private", title="Private", help="Whether.", kind="yes", default="yes"),
)


def test_answers_are_values_and_everything_wrong_is_told_at_once() -> None:
    typed = {"name": " notes ", "epsilon": "0.5", "method": "full", "private": "no"}
    found = answers(FIELDS, typed)
    assert found == {"name": "notes", "epsilon": 0.5, "method": "full", "private": False}
    assert answers(FIELDS, typed | {"epsilon": ""})["epsilon"] is None
    for bad in ("0", "-1", "nan", "inf", "eight"):
        with pytest.raises(ConfigWrong) as problem:
            answers(FIELDS, typed | {"name": "", "epsilon": bad, "method": "magic"})
        for words in ("Name is missing.", "Epsilon: a number above 0", "Method: it is one of lora, full"):
            assert words in problem.value.message
    whole = (Field(key="n", title="N", help="", kind="whole"),)
    assert answers(whole, {"n": "12"}) == {"n": 12}
    for bad in ("1.5", "-3", "0", "²"):
        with pytest.raises(ConfigWrong):
            answers(whole, {"n": bad})


def test_what_names_an_option_of_the_command_names_the_field() -> None:
    fields = (*FIELDS, Field(key="unit_name", title="Unit's name", help=""))
    said = "Choose another --name, not --names; a --unit-name; --other stays."
    assert by_title(fields, said) == """Choose another "Name", not --names; a "Unit's name"; --other stays."""


def test_a_form_is_filled_with_the_keys_and_loses_nothing_that_was_typed(tmp_path: Path) -> None:
    got: list[dict[str, Any] | None] = []

    def check(found: dict[str, Any]) -> None:
        if found["name"] == "taken":
            raise ConfigWrong("There is one of that name.", "Choose another --name.")

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        app.push_screen(FormWindow("Train", "Start", FIELDS, check=check), got.append)
        await until(pilot, lambda: "What it is called." in shown(app), "no form")
        await pilot.press(*"1taken", "down")  # digits belong to the field
        await until(pilot, lambda: "How much may be told" in shown(app), "the help does not follow")
        await pilot.press("enter", "right", "down", "left", "enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "Enter does not go on")
        await pilot.press("enter")
        await until(pilot, lambda: "Nothing is done yet: right goes to Start." in shown(app), "thrown away")
        await pilot.press("right")
        await until(pilot, lambda: "[ Start ]" in shown(app), "no way to the deed")
        assert app.current_mode == "home" and got == []
        app.screen.query_one("#field-name").value = "taken"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(
            pilot, lambda: 'There is one of that name. Choose another "Name".' in shown(app), "not refused"
        )
        app.screen.query_one("#field-name").value = "notes"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: got != [], "not sent")

    screens(a.session(tmp_path), act)
    assert got == [{"name": "notes", "epsilon": 8.0, "method": "full", "private": False}]


def test_what_destroys_needs_the_name_typed(tmp_path: Path) -> None:
    got: list[bool | None] = []

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        for typed, wanted in (("lora-0001", False), ("lora-0002", True)):
            app.push_screen(ConfirmName("Remove lora-0002? Its files go.", "lora-0002", "Remove"), got.append)
            await until(pilot, lambda: "[ Cancel ]" in shown(app), "not on Cancel")
            app.screen.query_one("#name").focus()
            await pilot.press(*typed, "enter")
            await until(pilot, lambda: "[ Cancel ]" in shown(app), "Enter did something")
            await pilot.press("tab", "enter")
            if not wanted:
                await until(pilot, lambda: "Type its name first" in shown(app), "the name is not asked for")
                assert got == []
                await pilot.press("escape")
            await pilot.pause()
            assert got[-1:] == [wanted]

    screens(a.session(tmp_path), act)
