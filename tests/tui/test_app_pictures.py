"""Screens at 80x24 on a recorded site look as in tests/tui/screens; pictures.py says how to renew those."""

from __future__ import annotations

from pathlib import Path

import app_site as a
import pytest
from app_site import screens, shown, until
from pictures import check, picture
from textual.pilot import Pilot

from appliance.core.home import Home
from appliance.ops.meters import Load
from tui.app import Cloister
from tui.screens.frame import Looking
from tui.screens.job import JobScreen
from tui.screens.machine import Machine
from tui.widgets.frame import TitleLine

MACHINE = Machine(
    cpu=0.22,
    cores=16,
    ram=0.61,
    ram_used=39.0,
    ram_total=64.0,
    disk=0.48,
    disk_left=460.0,
    network="no route out   OK",
)
SETTLED = {"home", "data", "train", "evaluate", "models", "serve", "audit"}


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(cores=1.9, memory=1_200_000_000, processes=1)
    monkeypatch.setattr(Looking, "EVERY", 0.4)
    monkeypatch.setattr("tui.screens.home.read_machine", lambda home: MACHINE)
    monkeypatch.setattr("tui.screens.following.read_machine", lambda home: MACHINE)
    monkeypatch.setattr("tui.screens.following.read_gpu", lambda: None)
    monkeypatch.setattr("appliance.ops.meters.Meter.read", lambda self: load)
    monkeypatch.setattr(TitleLine, "__init__", _titled)


_title = TitleLine.__init__


def _titled(self: TitleLine, site: str, who: str) -> None:
    _title(self, "St. Anna", who)


async def still(app: Cloister, pilot: Pilot[None]) -> None:
    """Wait until the screen is the same for a second."""
    seen = [""]

    def same() -> bool:
        seen.append(picture(app))
        return len(seen) > 50 and len(set(seen[-50:])) == 1

    await until(pilot, same, "it does not come to rest", 30.0)


def recorded(home: Home) -> None:
    """An import that failed, a training at work, its models of before."""
    a.failed(home)
    a.models(home)
    a.training(home, 40)


@pytest.mark.parametrize("mode", sorted(SETTLED))
def test_a_screen_of_the_nine(tmp_path: Path, mode: str) -> None:
    site = a.session(tmp_path)
    recorded(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        app.action_mode(mode)
        await still(app, pilot)
        check(app, mode)

    screens(site, act)


def test_all_jobs(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    recorded(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("j")
        await still(app, pilot)
        check(app, "jobs")

    screens(site, act)


def test_a_training_at_work(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.training(site.home, 40)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001", "train"))
        await until(pilot, lambda: "1.9 cores" in shown(app), "the machine is not read")
        await still(app, pilot)
        check(app, "job-train")

    screens(site, act)


def test_an_import_that_failed(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001", "data"))
        await still(app, pilot)
        check(app, "job-failed")

    screens(site, act)


def test_a_training_that_is_done(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.models(site.home)
    folder = a.training(site.home, 50)
    privacy = {"epsilon": 7.99, "delta": 6.2e-05, "unit": "patient"}
    a.tell(
        folder,
        "done",
        result={
            "name": "lora-0002",
            "kind": "adapter",
            "steps": 50,
            "base": "demo-base",
            "privacy": privacy | {"epsilon_dataset": 7.99, "epsilon_limit": 8.0},
        },
    )

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001", "train"))
        await until(pilot, lambda: "lora-0002" in shown(app), "no result")
        await still(app, pilot)
        check(app, "job-done")

    screens(site, act)
