"""The screens, driven by keys, on a real session over a home on disk."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from test_cli_train import PREVIEW
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import RichLog

from appliance.core.errors import NotFound
from appliance.core.processes import began
from appliance.ops import jobs
from tui.app import Cloister
from tui.commands import FIXED, entries
from tui.messages import Ended, LogLines, Progress
from tui.screens.frame import Looking
from tui.screens.job import JobScreen
from tui.screens.jobs import JobsScreen
from tui.screens.modals import Confirm, Words
from tui.screens.models import ModelsScreen
from tui.screens.modes import screen_class
from tui.screens.site import look
from tui.screens.story import Line, Picture
from tui.steps import NextStep


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


def test_home_shows_the_site_and_enter_opens_the_running_job(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)
    a.models(site.home)
    a.training(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Watch job 0002: train inbox" in shown(app), "no next step")
        text = shown(app)
        assert "0002 train inbox   running  40%" in text and "! 0001 import notes failed" in text
        assert "[>] Train     lora-0002  eps 7.99" in text and "[ ] Serve     -" in text
        await pilot.press("enter")
        await until(pilot, lambda: "20 of 50" in shown(app) and "clipped" in shown(app), "no live view")
        text = shown(app)
        for words in ("loss   2.900", "eps <= 3.12 of 8", "clipped 61%", "412 tok/s", "Ends at eps 7.99"):
            assert words in text, words
        assert "model  demo-base + LoRA of rank 4" in text and "saved up to step 19" in text
        told = [strip.text for strip in app.screen.query_one("#log", RichLog).lines]
        assert any("Protected: each of 1,600 patients" in line for line in told)
        assert any("step 20  loss 2.900  val 3.000  eps <= 3.12" in line for line in told)
        assert "left 01:12" in text and " 40%" in text and "Home > 0002 train inbox" in text
        assert all(len(line) == 80 for line in lines(app))
        await pilot.press("escape")
        assert app.current_mode == "home" and len(app.screen_stack) == 1

    screens(site, act)


def test_a_flood_redraws_once_a_second_and_drops_neither_lines_nor_the_end(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.tell(a.job(site.home, "train", "train inbox", process=a.me()), "started", kind="train")

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        screen = JobScreen("0001")
        await app.push_screen(screen)
        await until(pilot, lambda: screen.drawings > 0, "never drawn")
        screen.workers.cancel_group(screen, "follow")
        await pilot.pause(0.4)
        began, drawings = time.monotonic(), screen.drawings
        for step in range(1, 401):
            screen.post_message(Progress(Picture(state="running", stage="train", done=step, total=400)))
            if step % 4 == 0:
                screen.post_message(LogLines([Line(at="10:00:00", text=f"line {step}")]))
            if step % 100 == 0:
                await pilot.pause(0.05)
        screen.post_message(
            Ended(Picture(state="done", stage="train", done=400, total=400, end={"event": "done"}))
        )
        await until(pilot, lambda: "Run  done" in shown(app), "the end is missing")
        assert "400 of 400" in shown(app)
        told = [strip.text for strip in screen.query_one("#log", RichLog).lines]
        assert [line.split()[-1] for line in told if "line" in line] == [str(n) for n in range(4, 401, 4)]
        assert screen.drawings - drawings <= 2 + int(time.monotonic() - began)

    screens(site, act)


def test_the_last_progress_is_drawn_even_when_nothing_follows(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    folder = a.training(site.home, 5)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001"))
        await until(pilot, lambda: "5 of 50" in shown(app), "not followed")
        for number in range(6, 12):
            a.step(folder, number)
        await until(pilot, lambda: "11 of 50" in shown(app), "the last step is missing", 4.0)
        with (folder / "events.jsonl").open("a") as stream:
            stream.write('{"event": "log", "text": "half a li')
        await pilot.pause(0.4)
        assert "half" not in shown(app)

    screens(site, act)


def test_a_failed_job_ends_with_its_two_lines_and_can_be_resumed(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("j")
        await until(pilot, lambda: "import notes" in shown(app), "no list")
        await pilot.press("enter")
        await until(pilot, lambda: "error: There is no column named dignosis." in shown(app), "no error")
        assert "try: The columns are: text, diagnosis, patient." in shown(app)
        screen = app.screen
        assert isinstance(screen, JobScreen)
        assert screen.check_action("stop", ()) is None and screen.check_action("resume", ()) is True
        await pilot.press("s")
        assert app.screen is screen, "a key that cannot be used did something"
        await pilot.press("question_mark")
        assert isinstance(app.screen, Words)
        assert "Stop (not now: job 0001 is not running, it is failed)" in app.screen.text

    screens(site, act)


def test_stop_asks_first_with_the_focus_on_cancel(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as child:
        process = (child.pid, began(child.pid))
        a.tell(a.job(site.home, "train", "train inbox", process=process), "started", kind="train")

        async def act(app: Cloister, pilot: Pilot[None]) -> None:
            await pilot.press("j")
            await until(pilot, lambda: "running" in shown(app), "no list")
            await pilot.press("s")
            await until(pilot, lambda: isinstance(app.screen, Confirm), "not asked")
            await until(pilot, lambda: "[ Cancel ]" in shown(app), "the focus is elsewhere")
            await pilot.press("1", "q", "enter")
            await until(pilot, lambda: isinstance(app.screen, JobsScreen), "still asks")
            assert child.poll() is None
            await pilot.press("s")
            await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked again")
            await pilot.press("tab")
            await until(pilot, lambda: "[ Stop job ]" in shown(app), "no way to the other button")
            await pilot.press("enter")
            await until(pilot, lambda: child.poll() is not None, "not stopped")
            await until(pilot, lambda: "died" in shown(app), "the list does not know")

        screens(site, act)
    assert [entry["what"] for entry in site.audit_tail(1)] == ["job.stop"]


def test_a_job_that_ends_while_its_stop_is_asked_takes_the_question_along(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as child:
        folder = a.job(site.home, "train", "train inbox", process=(child.pid, began(child.pid)))
        a.tell(folder, "started", kind="train")

        async def act(app: Cloister, pilot: Pilot[None]) -> None:
            await pilot.press("j")
            await until(pilot, lambda: "running" in shown(app), "no list")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, JobScreen), "not open")
            await pilot.press("s")
            await until(pilot, lambda: isinstance(app.screen, Confirm), "not asked")
            a.tell(folder, "done", result={})
            child.kill()
            child.wait()
            await until(pilot, lambda: "It ended before it was stopped." in shown(app), "still asks")
            assert isinstance(app.screen, JobScreen)

        screens(site, act)
    assert [entry["what"] for entry in site.audit_tail(1)] != ["job.stop"]


def test_the_palette_has_our_table_and_no_screenshot(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)
    a.models(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        assert list(app.get_system_commands(app.screen)) == []
        app.action_screenshot(path=str(tmp_path))
        assert not list(tmp_path.glob("*.svg"))
        words = [entry.words for entry in entries(look(site, time.time(), 30))]
        assert {"job tail 0001", "job resume 0001", "evaluate lora-0002", "quantize demo-base"} <= set(words)
        assert "job stop 0001" not in words
        assert len(words) == len(set(words)) and [entry.words for entry in FIXED] == words[: len(FIXED)]
        own = [entry.words for mode in app.MODES for entry in screen_class(mode).PALETTE]
        assert len({*own, *words}) == len(own) + len(words)
        await pilot.press("colon")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette), "no palette")
        await pilot.press(*"model list")
        await until(pilot, lambda: "Bases, adapters, GGUF files" in shown(app), "not found")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.current_mode == "models", "not done")

    screens(site, act)


def test_models_with_lineage_and_card(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.models(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "lora-0002-q4_k_m" in shown(app), "no list")
        assert "demo-base  base (demo)" in shown(app)
        await pilot.press("down", "down")
        await until(pilot, lambda: "Lineage of lora-0002-q4_k_m" in shown(app), "no lineage")
        assert "> lora-0002  adapter + inbox@1 (synthetic)  job 0002" in shown(app)
        await pilot.press("enter")
        assert isinstance(app.screen, Words) and "epsilon: 7.99" in app.screen.text

    screens(site, act)


def test_rows_that_are_painted_before_they_are_measured_are_whole(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.models(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "lora-0002-q4_k_m" in shown(app), "no list")
        screen = app.screen
        assert isinstance(screen, ModelsScreen)
        name = "a-name-longer-than-any-before"
        screen.fill([(name, (name, "adapter", "-", "0.4 MB", "-", "-", "-", "demo"))])
        assert name in shown(app)  # painted at once, as when the screen is drawn for another reason

    screens(site, act)


@pytest.mark.parametrize("size", [(80, 24), (70, 20)])
def test_a_plain_terminal_gets_ascii_only_at_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("CLOISTER_PLAIN", "1")
    site = a.session(tmp_path)
    a.failed(site.home)
    a.training(site.home, 60)
    a.models(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        for keys, words in (
            (("1",), "Watch job"),
            (("j",), "train inbox"),
            (("enter",), "Run  running"),
            (("s",), "[ Cancel ]"),
            (("escape", "question_mark"), "Stop"),
            (("escape", "5"), "demo-base"),
            (("slash",), "filter"),
            (("escape", "colon"), "Type a command"),
        ):
            await pilot.press(*keys)
            await until(pilot, lambda words=words: words in shown(app), f"{keys}: no {words!r}")
            assert shown(app).isascii(), [line for line in lines(app) if not line.isascii()]
            assert all(len(line) == size[0] for line in lines(app))
            if words.startswith("Run"):
                chart = app.screen.query_one("#side")
                await until(pilot, lambda chart=chart: chart.display == (size[0] >= 80), "the chart")

    screens(site, act, size)


def test_enter_takes_the_demo_base_after_a_question(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    table = tmp_path / "notes.csv"
    table.write_text(
        "text,queue\n" + "".join(f"message number {n} about {'abc'[n % 3]},q{n % 3}\n" for n in range(60))
    )
    spec = {
        "path": str(table),
        "name": "notes",
        "columns": {"text": "text", "label": "queue"},
        "unit_is_record": True,
    }
    job_id = site.start_import(spec)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen(job_id))
        await until(
            pilot, lambda: "dataset notes@1" in shown(app) and "Done" in shown(app), "the import failed"
        )
        await until(pilot, lambda: "privacy unit: record" in shown(app), "no result")
        await pilot.press("escape")
        await until(pilot, lambda: "[x] Data      notes@1" in shown(app), "Home does not know")
        await until(pilot, lambda: "Import a base model" in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "< the small one shipped >" in shown(app), "not asked")
        await pilot.press("right")
        await until(pilot, lambda: "Folder or .gguf file" in shown(app), "no way to bring another")
        app.screen.query_one("#field-path").value = str(tmp_path)  # type: ignore[attr-defined]
        await pilot.press("up", "enter")
        await until(pilot, lambda: "config.json is missing" in shown(app), "no refusal")
        await until(pilot, lambda: "Folder or .gguf file" in shown(app), "the form has gone")
        await pilot.press("left", "up", "enter")
        await until(pilot, lambda: "Import more records than notes." in shown(app), "not taken")
        assert "too few for differential privacy" in shown(app), "a training that would be refused is named"

    screens(site, act)
    assert [model.name for model in site.models()] == ["demo-base"]
    for child in jobs._children.values():
        child.wait(60)


def test_a_training_is_asked_for_with_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = a.session(tmp_path)
    step = NextStep(text="Train on inbox.", why="", command="cloister train inbox --base demo-base")
    begun: list[dict[str, Any]] = []

    def start(spec: dict[str, Any]) -> str:
        begun.append(spec)
        return a.job(site.home, "train", "train inbox", process=a.me()).name

    monkeypatch.setattr("tui.screens.site.next_step", lambda *found, **facts: step)
    monkeypatch.setattr(site, "plan_training", lambda spec: PREVIEW)
    monkeypatch.setattr(site, "start_training", start)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Train on inbox." in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked")
        told = " ".join(shown(app).split())
        assert "this run alone 7.50" in told and "1,600 patients" in told and "cannot be had back" in told
        await pilot.press("pagedown")
        await until(pilot, lambda: "about 2 min" in shown(app), "the end of the plan cannot be read")
        await pilot.press("escape")
        await until(pilot, lambda: "[ Cancel ]" not in shown(app), "not left")
        assert begun == []
        await pilot.press("enter")
        await until(pilot, lambda: "[ Cancel ]" in shown(app), "not asked again")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "Home > 0001 train inbox" in shown(app), "not started")
        assert begun == [{"dataset": "inbox", "base": "demo-base", "settings": {}}]

    screens(site, act)


def test_errors_are_told_in_two_lines_and_the_screens_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a.session(tmp_path)
    a.models(site.home)
    a.failed(site.home)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0042"))
        await until(pilot, lambda: "error: There is no job 0042." in shown(app), "not told")
        assert "try: See `cloister job list`." in shown(app)
        await pilot.press("escape")

        def broken() -> None:
            raise ZeroDivisionError("a secret of a patient")

        monkeypatch.setattr(site, "models", broken)
        await until(pilot, lambda: "Something unexpected: ZeroDivisionError" in shown(app), "not told")
        assert "secret" not in shown(app)
        await pilot.press("j")
        assert isinstance(app.screen, JobsScreen) and app.is_running
        app.tell(NotFound("[bold]x[/bold]", "[@click=app.bell]y[/]"))
        await until(pilot, lambda: "error: [bold]x[/bold]" in shown(app), "read as markup")

    screens(site, act)
