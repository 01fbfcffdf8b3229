"""From nothing to an answering model by Enter and arrows alone: what Home and each job name next."""

from __future__ import annotations

from pathlib import Path

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.ops.jobs import JobView
from tui.app import Cloister
from tui.screens.deeds import deed_of
from tui.screens.form import FormWindow
from tui.screens.job import JobScreen
from tui.screens.modals import Asking
from tui.session import Session
from tui.steps import NextStep

PATIENCE = 600.0


@pytest.mark.soak
def test_import_train_evaluate_quantise_and_serve_with_enter_and_arrows(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    pressed: list[str] = []

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        async def press(*keys: str) -> None:
            pressed.extend(keys)
            await pilot.press(*keys)

        async def see(words: str) -> None:
            await until(pilot, lambda: words in shown(app), f"no {words!r}", PATIENCE)

        async def asked(title: str, *keys: str) -> None:
            """A window with this title; Enter on its last button after `keys`."""
            await until(
                pilot, lambda: isinstance(app.screen, Asking) and title in shown(app), f"no {title}", PATIENCE
            )
            window = app.screen
            last = "up" if isinstance(window, FormWindow) else "right"
            await press(*keys, last, "enter")
            await until(pilot, lambda: app.screen is not window, f"{title} stays", PATIENCE)

        async def done(kind: str, count: int = 1) -> None:
            """So many jobs of this kind are done, and what comes next stands on the screen."""
            await until(pilot, lambda: len(ended(site, kind)) == count, f"no {kind}", PATIENCE)
            await see("[Enter")

        await see("Import your records")
        await press("enter")
        await asked("Import records", "right")
        await done("import")
        await press("enter")
        await asked("Import a")
        await see("Train on inbox")
        await press("enter")
        await asked("Train demo-base on inbox?")
        await done("train")
        await press("enter")
        await done("evaluate")
        await press("enter")
        await asked("Quantise lora-0002?")
        await done("quantize")
        await press("enter")
        await done("evaluate", 2)
        await press("enter")
        await asked("Second model")
        await see("enter Next")
        await press("enter")
        await see("enter: ask something")
        await press("enter")
        await until(pilot, lambda: isinstance(app.screen.focused, Input), "no line to ask in", PATIENCE)
        await pilot.press(*"a new appointment")  # the question itself is typed
        await press("enter")
        await until(pilot, lambda: "% sure" in shown(app), "no answer", PATIENCE)

    try:
        screens(site, act)
    finally:
        for job in site.jobs():
            if job.state in ("waiting", "running"):
                site.stop_job(job.id)
    assert set(pressed) <= {"enter", "up", "down", "left", "right"}


def test_palette_and_form_know_what_a_job_made_since_the_last_look(tmp_path: Path) -> None:
    site = a.session(tmp_path)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Import your records" in shown(app), "no next step")
        app.push_screen(JobScreen(a.training(site.home).name))
        await until(pilot, lambda: isinstance(app.screen, JobScreen), "no job")
        a.models(site.home)
        await pilot.press("colon", *"serve lora")
        await until(pilot, lambda: "serve lora-0002-q4_k_m" in shown(app), "not in the palette")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, JobScreen), "the palette stays")
        assert isinstance(app.screen, JobScreen)
        app.screen.carry_out(deed_of(NextStep(text="", why="", command="cloister serve lora-0002")))
        await until(pilot, lambda: "Second model" in shown(app), "no form")
        assert "< lora-0002 >" in shown(app)

    screens(site, act)


def ended(site: Session, kind: str) -> list[JobView]:
    """The jobs of this kind that are done; one that failed fails the test."""
    found = [job for job in site.jobs() if job.kind == kind]
    assert {job.state for job in found} <= {"waiting", "running", "done"}, found[-1].end
    return [job for job in found if job.state == "done"]
