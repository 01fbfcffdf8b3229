"""One question to several models, side by side, by real llama.cpp; kept is only what is rated."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.core.errors import ConfigWrong
from appliance.core.files import sha256_file
from appliance.models import registry
from appliance.models.registry import Model
from appliance.security.keys import OWN_NAME
from tui.app import Cloister
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.playground import NOBODY, PlaygroundScreen, chosen_of, playable
from tui.session import Session
from tui.session_feedback import list_feedback

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import serve_support as support

ASKED = "zebrafish bill"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


@pytest.fixture
def site(tmp_path: Path) -> Session:
    """Two files to ask."""
    home = support.new_home(tmp_path / "home")
    path = home.models / "other.gguf"
    shutil.copy(support.gguf(labels=False), path)
    size, digest = path.stat().st_size, sha256_file(path)
    registry.add(home, Model(name="other", kind="gguf", path=path, sha256=digest, size=size), who="tests")
    return a.session(home.path)


def kept(home: Path) -> list[str]:
    """Files of the home in which the question is."""
    return [
        str(path)
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".gguf" and ASKED.split()[0].encode() in path.read_bytes()
    ]


def test_two_models_answer_side_by_side_and_only_what_is_rated_is_stored(site: Session) -> None:
    home = site.home.path

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "other" in shown(app), "no models")
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.press("enter", "enter", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlaygroundScreen), "not opened")
        screen = app.screen
        assert isinstance(screen, PlaygroundScreen) and set(screen.names) == {support.NAME, "other"}
        await until(pilot, lambda: screen.query_one(Input).placeholder == "enter: ask", "not up")
        await pilot.press(*ASKED, "enter")
        await until(pilot, lambda: all(screen.replies), "not answered")
        await until(pilot, lambda: shown(app).count("first token") == 2, "no figures")
        assert f"> {ASKED}" in shown(app)
        assert kept(home) == [] and list_feedback(site) == []

        await pilot.press("escape", "r")
        await until(pilot, lambda: "Answer of" in shown(app), "no form")
        await pilot.press("down", "right", "up", "up", "enter")
        await until(pilot, lambda: len(list_feedback(site)) == 1, "not stored")
        await pilot.press("escape", "escape")  # the question, then the screen
        await until(pilot, lambda: not isinstance(app.screen, PlaygroundScreen), "not left")
        await until(pilot, lambda: all(job.state != "running" for job in site.jobs()), "its endpoint goes on")

    screens(site, act)
    assert list_feedback(site)[0].thumb == 1
    assert not [key for key in site.api_keys() if key.name == OWN_NAME and not key.revoked]


def test_files_of_the_chosen_model_come_first_and_none_twice() -> None:
    def model(name: str, parent: str, **facts: object) -> Model:
        return Model(name=name, kind="gguf", path=Path(name), sha256="0", size=1, parent=parent, facts=facts)

    models = [model("a-q4", "a"), model("b-q4", "b"), model("c-q4", "c"), model("v", "v", embeds=True)]
    assert playable(models, "b") == ["b-q4", "c-q4", "a-q4"]
    found = {"model0": "a", "model1": "b", "model2": NOBODY, "model3": None}
    assert chosen_of(found) == ("a", "b")
    with pytest.raises(ConfigWrong):
        chosen_of(found | {"model2": "a"})
