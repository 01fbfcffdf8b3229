"""Screens that nobody looks after close, and with them what they know; a lock reaches a face that is idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import app_site as a
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support
from textual.pilot import Pilot

from appliance.core import files, reading
from appliance.core.home import open_home
from appliance.core.sealing import Locked
from appliance.security.people.persons import IDLE_MINUTES
from appliance.security.vault import mounted, slots, unlocking
from tui.app import Cloister
from tui.idle import Idle
from tui.session import Session

ROOT = Path(__file__).parents[2]
WORDS = "seven grey herons wade"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sealed(folder: Path) -> tuple[Session, bytes]:
    """A sealed site of one person, unlocked, whose key this process has."""
    home = open_home(folder)
    master = slots.create(home, "mira", WORDS)
    unlocking.start(home, master)
    files.write_bytes(home.feedback / "a", b"words of a record")
    assert mounted.holds(home.path)
    return Session(home.path, who="mira"), master


def test_the_keys_go_when_nobody_was_there(tmp_path: Path) -> None:
    site, _ = sealed(tmp_path / "home")
    try:
        clock = Clock()
        idle = Idle(site, clock)
        copy = reading.local(site.home.feedback / "a")
        for minutes in (IDLE_MINUTES - 1, IDLE_MINUTES - 1):
            clock.now += 60 * minutes
            assert idle.over() == ""
            idle.touch()
        clock.now += 60 * IDLE_MINUTES
        assert mounted.holds(site.home.path) and copy.exists()
        assert f"no key was pressed for {IDLE_MINUTES} minutes" in idle.over()
        assert not mounted.holds(site.home.path) and not copy.exists()
    finally:
        unlocking.lock(site.home)


def test_the_key_that_a_person_signs_with_goes_too(tmp_path: Path) -> None:
    home = people_support.settle_in(open_home(tmp_path / "home"))
    site = Session(home.path, signer=people_support.signer("olga"))
    clock = Clock()
    idle = Idle(site, clock)
    assert site.actor.signer is not None and idle.over() == ""
    clock.now += 60 * IDLE_MINUTES
    assert idle.over() and site.actor.signer is None and site.why_not("job.stop")


def test_a_home_with_nothing_to_hide_stays_open(tmp_path: Path) -> None:
    clock = Clock()
    idle = Idle(a.session(tmp_path / "home"), clock)
    clock.now += 1e6
    assert idle.over() == ""


def test_the_screens_close_and_say_why(tmp_path: Path) -> None:
    site, _ = sealed(tmp_path / "home")
    try:

        async def act(app: Cloister, pilot: Pilot[None]) -> None:
            clock = Clock()
            app.idle = Idle(site, clock)
            clock.now += 60 * IDLE_MINUTES - 1
            await pilot.press("2")  # somebody is there
            clock.now += 60 * IDLE_MINUTES - 1
            app.look_idle()
            assert not app._exit
            clock.now += 1
            app.look_idle()
            assert app._exit and "Jobs go on" in str(app._exit_renderables)
            assert not mounted.holds(site.home.path)

        a.screens(site, act)
    finally:
        unlocking.lock(site.home)


def test_a_lock_closes_them(tmp_path: Path) -> None:
    site, _ = sealed(tmp_path / "home")
    idle = Idle(site, Clock())
    assert idle.over() == ""
    _locked_elsewhere(site)
    assert mounted.look(site.home.path) is False  # what the thread of mounted.py does
    assert "the site was locked" in idle.over() and idle.over() == ""


def test_a_face_that_reads_nothing_drops_its_keys_after_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounted, "_AGAIN", 0.05)
    site, _ = sealed(tmp_path / "home")
    copy = reading.local(site.home.feedback / "a")
    time.sleep(0.2)
    assert mounted.holds(site.home.path) and copy.exists()  # it goes on while the site is unlocked
    _locked_elsewhere(site)
    limit = time.monotonic() + 30
    while (mounted.holds(site.home.path) or copy.exists()) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not mounted.holds(site.home.path) and not copy.exists()
    with pytest.raises(Locked):
        reading.read_bytes(site.home.feedback / "a")


def _locked_elsewhere(site: Session) -> None:
    code = (
        "import sys; from pathlib import Path; from appliance.core.home import Home\n"
        "from appliance.security.vault import unlocking; assert unlocking.lock(Home(path=Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(site.home.path)], env=environment, check=True)
