"""The first run: four answers make a site; nothing is made before the last, and no passphrase is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.app import App
from textual.pilot import Pilot

from appliance.core.errors import ConfigWrong
from appliance.core.home import open_home
from appliance.security.passphrase import Cost
from appliance.security.people import mode
from appliance.security.vault import unlocking
from tui import app as application
from tui.app import Cloister
from tui.first import Begun, FirstRun, needed
from tui.screens.first_fields import PEOPLE, founders
from tui.session import Session

WORDS = "seven horses eat staples"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.session_people.calibrated", lambda: Cost())
    monkeypatch.setattr("getpass.getuser", lambda: "mira")


def first_run(folder: Path, act: Callable[[FirstRun, Pilot[Begun | None]], Awaitable[None]]) -> Begun | None:
    """Run it at 80x24 over the home `folder` and hand it to `act`; what it ends with."""

    async def main() -> Begun | None:
        app = FirstRun(folder)
        async with app.run_test(size=(80, 24)) as pilot:
            await act(app, pilot)
        return app.return_value

    return asyncio.run(main())


async def see(pilot: Pilot[Begun | None], words: str) -> None:
    await until(pilot, lambda: words in shown(pilot.app), f"no {words!r}")  # type: ignore[arg-type]


def test_esc_leaves_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async def act(app: FirstRun, pilot: Pilot[Begun | None]) -> None:
        await see(pilot, "1 Name of the site")
        assert all(len(line) == 80 for line in lines(app))
        await pilot.press(*"Anna", "up", "enter")
        await see(pilot, "4 Seal the site")
        await pilot.press("escape")
        await see(pilot, "1 Name of the site")
        assert "Anna" in shown(app)  # what was typed is still there
        await pilot.press("escape")

    assert needed(folder) and first_run(folder, act) is None and not folder.exists()


def test_what_cannot_be_is_refused_where_it_was_typed(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async def act(app: FirstRun, pilot: Pilot[Begun | None]) -> None:
        await see(pilot, "1 Name of the site")
        await pilot.press(*"Anna", "down", "down", "right", "down", *"/nowhere", "enter", "right", "enter")
        await see(pilot, "There is no file or folder /nowhere.")
        assert "1 Name of the site" in shown(app)
        app.screen.query_one("#field-site").value = "A" * 65  # type: ignore[attr-defined]
        await pilot.press("enter")
        await see(pilot, "1 to 64 printable characters")
        assert "1 Name of the site" in shown(app)

    first_run(folder, act)
    assert not folder.exists()


def test_one_person_takes_the_demo_with_enter_and_arrows(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async def act(app: FirstRun, pilot: Pilot[Begun | None]) -> None:
        await see(pilot, "1 Name of the site")
        await pilot.press(*"St. Anna", "enter", "enter", "enter", "down", "enter")
        await see(pilot, "4 Seal the site")
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.return_value is not None, "not made")

    begun = first_run(folder, act)
    assert begun is not None and begun.signer is None and begun.given == {"source": "demo, made up"}
    home = open_home(folder)
    tied = mode.anchor(home)
    assert tied is not None and (tied.mode, tied.site, tied.vault) == (mode.SINGLE, "St. Anna", "")
    assert not needed(folder) and "single-person mode" in begun.told.lower()

    async def then(app: Cloister, pilot: Pilot[None]) -> None:
        app.begun = begun
        await until(pilot, lambda: "Import your records" in shown(app), "no next step")
        assert lines(app)[0].startswith("Cloister  St. Anna > Home")
        await pilot.press("enter")
        await until(pilot, lambda: "< demo, made up >" in shown(app), "the answer is lost")

    screens(Session(folder, who="mira"), then)


def test_a_weak_passphrase_and_one_typed_in_two_ways_are_refused_and_never_shown(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async def act(app: FirstRun, pilot: Pilot[Begun | None]) -> None:
        await see(pilot, "1 Name of the site")
        await pilot.press(*"Anna", "up", "enter")
        await see(pilot, "4 Seal the site")
        await pilot.press("right")
        await see(pilot, "Once more")
        for first, second, told in (
            ("horses", "horses", "too easy to guess"),
            (WORDS, WORDS + "x", "not the same"),
            ("", "", "Passphrase is missing"),
        ):
            for key, typed in (("passphrase", first), ("passphrase-again", second)):
                app.screen.query_one(f"#field-{key}").value = typed  # type: ignore[attr-defined]
            app.screen.query_one("#do").focus()
            await pilot.press("enter")
            await see(pilot, told)
            assert "horses" not in shown(app) and not folder.exists()
        app.screen.query_one("#field-passphrase").focus()
        await pilot.press(*WORDS, "down", *WORDS, "down", "down")
        assert "horses" not in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.return_value is not None, "not made", 60)

    begun = first_run(folder, act)
    home = open_home(folder)
    try:
        assert begun is not None and "sealed" in begun.told and WORDS not in repr(begun) + begun.told
        assert (folder / "vault.json").exists()
    finally:
        unlocking.lock(home)


def test_people_who_check_each_other_sign_in_as_the_operator(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async def act(app: FirstRun, pilot: Pilot[Begun | None]) -> None:
        await see(pilot, "1 Name of the site")
        await pilot.press(*"Anna", "down", "right", "up", "up", "enter")
        await see(pilot, "4 Security admin")
        for key, name in (("security", "sam"), ("officer", "olga"), ("operator", "ana")):
            for field, typed in ((key, name), (f"{key}-passphrase", f"{WORDS} {name}")):
                app.screen.query_one(f"#field-{field}").value = typed  # type: ignore[attr-defined]
            again = app.screen.query_one(f"#field-{key}-passphrase-again")
            again.value = f"{WORDS} {name}"  # type: ignore[attr-defined]
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.return_value is not None, "not made", 60)

    begun = first_run(folder, act)
    home = open_home(folder)
    try:
        assert begun is not None and begun.signer is not None and begun.signer.person == "ana"
        site = Session(folder, signer=begun.signer)
        assert site.actor.role == "operator" and site.why_not("data.import") is None
    finally:
        unlocking.lock(home)


def test_the_first_people_are_checked_one_by_one() -> None:
    found = {field.key: None for field in PEOPLE}
    found |= {"security": "sam", "officer": "olga"}
    for key, name in (("security", "sam"), ("officer", "olga")):
        found |= {f"{key}-passphrase": WORDS + name, f"{key}-passphrase-again": WORDS + name}
    assert [one.role for one in founders(found)] == ["security-admin", "privacy-officer"]
    with pytest.raises(ConfigWrong, match="not the same"):
        founders({**found, "officer-passphrase-again": WORDS})
    with pytest.raises(ConfigWrong, match="too easy"):
        founders({**found, "operator": "ana", "operator-passphrase": None, "operator-passphrase-again": None})
    with pytest.raises(ConfigWrong, match="name of a person"):
        founders({**found, "security": "Sam I am"})


def test_cloister_asks_where_there_is_no_site_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[App[None]] = []
    asked: list[FirstRun] = []
    monkeypatch.setattr(application.Cloister, "run", lambda self: opened.append(self))
    monkeypatch.setattr(FirstRun, "run", lambda self: asked.append(self))
    with pytest.raises(SystemExit):
        application.run(tmp_path / "new")
    assert len(asked) == 1 and not opened and "Nothing was made" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    site = a.session(tmp_path / "old")
    a.models(site.home)
    with pytest.raises(SystemExit):
        application.run(tmp_path / "old")
    assert len(asked) == 1 and len(opened) == 1
