"""Blind A/B by real llama.cpp: no name before the end, left and taken up again, told by the command."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot

from appliance.core.files import sha256_file
from appliance.evaluate import blind
from appliance.models import registry
from appliance.models.registry import Model
from tui import session_blind
from tui.app import Cloister
from tui.cli.entry import run
from tui.screens.blind import BlindList, BlindScreen
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import serve_support as support


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Two files, one with labels, and records."""
    home = support.new_home(tmp_path / "home")
    path = home.models / "other.gguf"
    shutil.copy(support.gguf(labels=False), path)
    size, digest = path.stat().st_size, sha256_file(path)
    registry.add(home, Model(name="other", kind="gguf", path=path, sha256=digest, size=size), who="tests")
    source = tmp_path / "inbox.csv"
    rows = [f"knee message {n} of the zebrafish,l{n % 2},p{n}" for n in range(60)]
    source.write_text("\n".join(["text,label,patient", *rows]))
    words = ["--text", "text", "--label", "label", "--unit", "patient", "--name", "inbox"]
    assert run(["data", "import", str(source), *words, "--home", str(home.path)]) == 0
    return a.session(home.path)


def test_names_are_told_at_the_end_and_it_goes_on_where_it_stood(
    site: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (support.NAME, "other")

    async def judged(app: Cloister, pilot: Pilot[None], count: int) -> None:
        while (done := len(blind.kept(site.home)[0].choices)) < count:
            screen = app.screen
            assert isinstance(screen, BlindScreen)
            await until(pilot, lambda screen=screen: screen.pair is not None or screen.one.done, "no pair")
            if not screen.one.done:
                assert not any(name in shown(app) for name in names)
                assert f"answer pair {len(screen.one.choices) + 1} of 4 (blind)" in shown(app)
                await pilot.press("a")
                await until(
                    pilot,
                    lambda done=done: len(blind.kept(site.home)[0].choices) > done,
                    "not kept",
                )

    async def begin(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("4", "c")
        await until(pilot, lambda: isinstance(app.screen, BlindList), "no list")
        await until(pilot, lambda: "No blind comparison yet." in shown(app), "no words")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        await pilot.press(*["down"] * 4, "backspace", "backspace", "4", "enter", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, BlindScreen), "not begun")
        await judged(app, pilot, 2)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, BlindList), "not left")
        await until(pilot, lambda: "of 4" in shown(app), "not listed")

    async def go_on(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("4", "c")
        await until(pilot, lambda: "of 4" in shown(app), "not listed")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, BlindScreen), "not open")
        await judged(app, pilot, 4)
        await until(pilot, lambda: "all pairs are judged" in shown(app), "no end")
        assert all(name in shown(app) for name in names)

    screens(site, begin)
    assert run(["report", "blind", "1", "--home", str(site.home.path)]) == 0
    assert "Counts are told at the end." in capsys.readouterr().out
    screens(site, go_on)
    (one,) = blind.kept(site.home)
    assert one.done and "blind.end" in [told["what"] for told in site.audit_tail(5)]
    files = [path for path in site.home.reports.rglob("*") if path.is_file()]
    assert files and not any(b"zebrafish" in path.read_bytes() for path in files)
    assert run(["report", "blind", "--json", "--home", str(site.home.path)]) == 0
    (told,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert sum(told["counts"].values()) == 4 and told["judged"] == 4


def test_record_text_leaves_a_screen_that_nobody_looks_at(
    site: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = session_blind.begin(site, dataset="inbox", split="test", models=(support.NAME, "other"), pairs=2)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(BlindScreen(one))
        screen = app.screen
        assert isinstance(screen, BlindScreen)
        await until(pilot, lambda: "zebrafish" in shown(app), "no pair")
        screen._touched -= 1000
        screen.hide()
        await until(pilot, lambda: "hidden: press any key" in shown(app), "still there")
        assert "zebrafish" not in shown(app)
        await pilot.press("a")  # wakes it, chooses nothing
        await until(pilot, lambda: "zebrafish" in shown(app), "not back")
        assert blind.kept(site.home)[0].choices == ()

    screens(site, act)
