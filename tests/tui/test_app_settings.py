"""How the screens look is kept for a person; screens that look only change nothing."""

from __future__ import annotations

from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot
from typer.testing import CliRunner

from appliance.core.errors import ConfigWrong, NotAllowed
from appliance.security.people.guard import looking
from appliance.security.people.roles import TABLE
from tui.app import Cloister, plain
from tui.cli import app as commands
from tui.settings import place, read_settings, write_settings


def test_settings_are_kept_and_what_is_wrong_in_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "screens.toml"
    assert read_settings(path) == {"theme": "dark", "plain": "auto"}
    write_settings(path, {"theme": "contrast", "plain": "always"})
    assert read_settings(path) == {"theme": "contrast", "plain": "always"}
    for text, words in (
        ('theme = "pink"', "Theme: it is one of dark, light, contrast"),
        ("colour = 1", "names no setting of the screens: colour"),
        ("theme = ", "cannot be read as settings"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigWrong) as problem:
            read_settings(path)
        assert words in problem.value.message


def test_the_form_changes_theme_and_characters_at_once_and_for_next_time(tmp_path: Path) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Import your records" in shown(app), "no screen")
        await pilot.press("comma")
        await until(pilot, lambda: "Settings of the screens" in shown(app), "no form")
        await pilot.press("left", "down", "right", "enter", "down", "enter")
        await until(pilot, lambda: app.theme == "cloister-contrast", "not applied")
        await until(pilot, lambda: shown(app).isascii(), "not plain")

    screens(a.session(tmp_path / "site"), act)
    assert read_settings(place()) == {"theme": "contrast", "plain": "always"}
    done = CliRunner().invoke(commands, ["settings", "--plain", "never", "--json"])
    assert done.exit_code == 0 and '"theme": "contrast", "plain": "never"' in done.stdout
    assert CliRunner().invoke(commands, ["settings", "--theme", "pink"]).exit_code != 0
    assert read_settings(place())["theme"] == "contrast"
    assert not plain("never") and plain("always")


def test_screens_that_look_only_change_nothing_and_say_so(tmp_path: Path) -> None:
    site = a.session(tmp_path / "site")
    folder = a.training(site.home)
    site.actor = looking(site.actor)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Watch job 0001" in shown(app), "no next step")
        assert lines(app)[0].endswith("mira (looks only)")
        await pilot.press("j", "question_mark")
        await until(pilot, lambda: "not now: it was opened to look only (--look)" in shown(app), "no reason")
        await pilot.press("escape", "s")
        await pilot.pause(0.3)
        assert "[ Cancel ]" not in shown(app), "the dim key works"

    screens(site, act)
    assert folder.exists() and site.job("0001").state == "running"
    for change in (
        lambda: site.stop_job("0001"),
        lambda: site.demo_base(),
        lambda: site.set_budget("inbox", 4.0),
    ):
        with pytest.raises(NotAllowed, match="look only"):
            change()
    allowed = {action for action in TABLE if site.why_not(action) is None}
    assert "site.read" in allowed and not {action for action in allowed if "start" in action}
