"""The model screen: a model is quantised, sent to a partner, taken in there, and removed, by keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from test_cli_bundle import tuned
from textual.pilot import Pilot

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))

from appliance.core.home import open_home
from appliance.models import registry
from appliance.models.importing import DEMO_BASE
from quantize.convert import convert
from quantize.source import open_checkpoint
from tui import session_bundle
from tui.app import Cloister
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import Confirm, ConfirmName, Words
from tui.session import Session


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


async def models_of(app: Cloister, pilot: Pilot[None], name: str) -> None:
    await until(pilot, lambda: "Next step" in shown(app), "no Home")
    await pilot.press("5")
    await until(pilot, lambda: name in shown(app), "no models")


async def form(app: Cloister, pilot: Pilot[None], key: str) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")


def test_the_types_are_asked_planned_and_what_starts_is_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a.session(tmp_path)
    a.models(site.home)
    begun: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []

    def start(spec: dict[str, Any]) -> str:
        begun.append(spec)
        return a.job(site.home, "quantize", "quantise demo-base", process=a.me()).name

    def plan(session: Session, deed: Any, width: int) -> str:
        asked.append(dict(deed.spec))
        return "the plan"

    monkeypatch.setattr("tui.screens.frame.plan_text", plan)
    monkeypatch.setattr(site, "start_quantising", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await models_of(app, pilot, "demo-base")
        assert all(len(line) == 80 for line in lines(app)) and "q Leave" in lines(app)[-1]
        await pilot.press("end", "z")
        await pilot.pause(0.5)
        assert not isinstance(app.screen, FormWindow)  # a GGUF file is not quantised again
        await pilot.press("home")
        await form(app, pilot, "z")
        await pilot.press(*("backspace",) * 11, *"q8_0", "down", "right", "down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "no plan")
        assert "the plan" in shown(app)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "0001 quantise demo-base" in shown(app), "not started, or not shown")

    screens(site, act)
    assert begun == asked == [{"model": "demo-base", "types": ["Q8_0"], "imatrix": True}]


def test_a_model_goes_from_screen_to_screen(tmp_path: Path) -> None:
    file = tmp_path / "demo.gguf"
    convert(open_checkpoint(DEMO_BASE), file, "F16", name="demo")
    here, there = Session(tmp_path / "here", who="mira"), Session(tmp_path / "there", who="joe")
    model, by = tuned(open_home(tmp_path / "here"), file), ("mira", "joe")
    for site, name in ((here, "centre"), (there, "edge-12")):
        session_bundle.make_identity(site, name, "release")
        session_bundle.card(site, tmp_path / f"{name}.card")
    for site, name in ((here, "edge-12"), (there, "centre")):
        path = tmp_path / f"{name}.card"
        words = session_bundle.card_facts(session_bundle.read_card_file(path))["words"]
        session_bundle.trust_add(site, path, words=words, compared_by=by, kinds=None)
    out = tmp_path / "x.clb"

    async def send(app: Cloister, pilot: Pilot[None]) -> None:
        await models_of(app, pilot, model.name)
        await pilot.press("end")
        await form(app, pilot, "b")
        entry = app.screen.query_one("#field-path")
        entry.value = str(out)  # type: ignore[attr-defined]
        await pilot.press("up", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmName), "what leaves is not shown")
        text = shown(app)
        assert "This leaves the building" in text and "lora-0007-F16.gguf" in text and not out.exists()
        await pilot.press("up", *model.name, "enter", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, Words), "not written")
        assert "number 1" in shown(app) and out.exists()

    async def take(app: Cloister, pilot: Pilot[None], *, code: str) -> None:
        await until(pilot, lambda: "Next step" in shown(app), "no Home")
        await pilot.press("5")
        await until(pilot, lambda: "No models yet." in shown(app) or model.name in shown(app), "no models")
        for what, said in ((), "The bundle is good"), (("right",), code):
            await form(app, pilot, "v")
            app.screen.query_one("#field-path").value = str(out)  # type: ignore[attr-defined]
            await pilot.press("down", *what, "up", "up", "enter")
            await until(pilot, lambda said=said: said in shown(app), said)  # type: ignore[misc]
            await pilot.press("escape")

    screens(here, send)
    screens(there, lambda app, pilot: take(app, pilot, code=f"{model.name} is in"))
    assert registry.get(there.home, model.name).facts["bundle"]["signer"] == "centre"


def test_removal_wants_the_name_and_takes_the_files(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    site.demo_base()
    place = registry.get(site.home, "demo-base").path

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await models_of(app, pilot, "demo-base")
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmName), "not asked")
        await pilot.press("up", *"demo", "enter", "tab", "enter")
        await pilot.pause(0.5)
        assert place.exists()  # half a name is no name
        await pilot.press(*"demo-base", "enter", "tab", "enter")
        await until(pilot, lambda: "No models yet." in shown(app), "still there")

    screens(site, act)
    assert not place.exists()
