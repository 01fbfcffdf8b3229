"""What terminals and people do to screens: jobs that die under them, sizes, wide letters, keys in fields."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.core.processes import began
from tui.app import Cloister
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.home_lines import job_line
from tui.screens.job import JobScreen
from tui.screens.jobs import JobsScreen
from tui.screens.site import JobRow
from tui.widgets.fit import column, fit
from tui.widgets.frame import SCREENS, title_text

WIDE = ("train 患者記録の分類", "train Ärzte e\u0301tude", "import 🏥 notes 🩺", "train a\u200bb")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


def test_a_job_killed_under_the_open_screen_says_so_and_what_to_do(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as child:
        process = (child.pid, began(child.pid))
        folder = a.job(site.home, "train", "train inbox", process=process)
        a.tell(folder, "started", kind="train")
        a.tell(folder, "plan", **a.PLAN)
        a.step(folder, 7)

        async def act(app: Cloister, pilot: Pilot[None]) -> None:
            await app.push_screen(screen := JobScreen("0001"))
            await until(pilot, lambda: "step   7 of 50" in shown(app), "not followed")
            assert screen.check_action("stop", ()) is True and screen.check_action("resume", ()) is None
            child.kill()
            await until(pilot, lambda: "died without" in shown(app), "the end is not told")
            told = " ".join(shown(app).replace("┃", "").split())
            assert "error: Job 0001 died without a word (killed, or the machine went down)." in told
            assert "try: r goes on from what it had finished." in told and "step 7 of 50" in told
            assert screen.check_action("stop", ()) is None and screen.check_action("resume", ()) is True

        screens(site, act)


def test_ten_jobs_at_once_each_have_their_own_row(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    folders = []
    for number in range(1, 11):
        folders.append(a.job(site.home, "train", f"train set-{number}", process=a.me()))
        a.tell(folders[-1], "started", kind="train")
        a.step(folders[-1], number, 20)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("j")
        await until(pilot, lambda: "train set-1 " in shown(app), "no list")
        rows = [line for line in lines(app) if "train set-" in line]
        assert len(rows) == 10 and all("running" in row for row in rows)
        assert [int(row.split("%")[0].split()[-1]) for row in rows] == [
            5 * number for number in range(10, 0, -1)
        ]
        await pilot.press("down", "down", "down")
        for folder in folders:
            a.step(folder, 20, 20)
        await until(pilot, lambda: shown(app).count("100%") == 10, "a row stands still")
        assert isinstance(app.screen, JobsScreen) and app.screen.chosen == "0007", "the cursor has jumped"

    screens(site, act)


@pytest.mark.parametrize("size", [(80, 24), (70, 20)])
def test_wide_letters_keep_the_columns(tmp_path: Path, size: tuple[int, int]) -> None:
    site = a.session(tmp_path)
    for title in WIDE:
        folder = a.job(site.home, "train", title * 3, process=a.me())
        a.tell(folder, "started", kind="train")
        a.tell(folder, "log", text=f"{title} " * 9)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        for keys, words in ((("1",), "running"), (("j",), "running"), (("enter",), "Run  running")):
            await pilot.press(*keys)
            await until(pilot, lambda words=words: words in shown(app), f"{keys}")  # type: ignore[misc]
            assert {cell_len(line) for line in lines(app)} == {size[0]}
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen), "not back")
        at = {cell_len(line[: line.index("running")]) for line in lines(app) if "running" in line}
        assert len(at) == 1, "the states do not stand below each other"

    screens(site, act, size)


def test_text_is_cut_by_cells() -> None:
    for title in WIDE:
        for width in range(0, 30):
            assert cell_len(fit(title, width)) <= width and cell_len(column(title, width)) == width
        row = JobRow(
            id="0001", kind="train", title=title * 4, who="m", state="running", share=0.5, time="1", said=""
        )
        assert cell_len(job_line(row, 38)) <= 38
        assert cell_len(title_text("site", ["Home", title * 9], "mira", 60)) <= 60
    assert fit("train inbox", 11) == "train inbox" and fit("train inbox", 8) == "train .."


@pytest.mark.parametrize("mode", [mode for _, mode, _ in SCREENS])
def test_no_size_and_no_haste_breaks_a_screen(tmp_path: Path, mode: str) -> None:
    site = a.session(tmp_path)
    a.failed(site.home)
    a.training(site.home, 30)
    a.models(site.home)
    draw = random.Random(mode)
    sizes = [(40, 10), (200, 60), *((draw.randint(40, 200), draw.randint(10, 60)) for _ in range(28))]

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        app.action_mode(mode)
        for width, height in sizes:
            await pilot.resize_terminal(width, height)
        await pilot.pause(0.1)
        last = sizes[-1]
        await until(pilot, lambda: app.size == last, "the last size has not come")
        await until(pilot, lambda: {cell_len(line) for line in lines(app)} == {last[0]}, "torn")
        assert app.current_mode == mode and len(lines(app)) == last[1]

    screens(site, act)


def test_the_live_view_stands_any_size(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.training(site.home, 30)
    draw = random.Random(5)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001"))
        await until(pilot, lambda: "30 of 50" in shown(app), "not followed")
        for _ in range(30):
            await pilot.resize_terminal(draw.randint(40, 200), draw.randint(10, 60))
        for size in ((70, 20), (200, 60), (80, 24)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: "30 of 50" in shown(app) and "eps <= 3.12" in shown(app), f"{size}")
            assert {cell_len(line) for line in lines(app)} == {size[0]}

    screens(site, act)


def test_what_is_typed_into_a_form_is_text_and_no_key(tmp_path: Path) -> None:
    site = a.session(tmp_path)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("2", "i")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        form = app.screen
        field = form.query(Input).first()
        field.value = ""
        field.focus()
        await pilot.press(*"123456789jqmsrlnv", "colon", "slash", "question_mark", "comma")
        assert app.screen is form and app.current_mode == "data"
        assert field.value == "123456789jqmsrlnv:/?,"

    screens(site, act)
