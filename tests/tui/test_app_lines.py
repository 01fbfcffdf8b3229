"""The pure parts of the screens: events to pictures, pictures to text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tui.app import Cloister
from tui.screens.budgets import budget_lines
from tui.screens.deeds import deed_of, why_not
from tui.screens.home_lines import watch_text
from tui.screens.job_lines import run_text, stage_line
from tui.screens.job_results import end_text
from tui.screens.machine import network
from tui.screens.site import JobRow, SiteView
from tui.screens.story import MOST_POINTS, Picture, Story, length, thinned
from tui.session import Session
from tui.steps import NextStep
from tui.widgets.chart import draw_chart
from tui.widgets.frame import title_text
from tui.widgets.gauge import gauge, gauge_line


def _step(number: int, loss: float, second: int = 0) -> dict[str, object]:
    at = f"2026-01-05T10:{second // 60:02d}:{second % 60:02d}.000+00:00"
    return {"event": "progress", "at": at, "stage": "train", "done": number, "total": 10, "loss": loss}


def test_a_resumed_job_takes_back_its_end_and_the_steps_it_repeats() -> None:
    story = Story()
    start = {"event": "started", "at": "2026-01-05T10:00:00.000+00:00"}
    story.take([start, *(_step(n, 3.0 - n / 10, n) for n in (1, 2, 3, 4))], "running")
    story.take([{"event": "failed", "message": "m", "hint": "h"}], "failed")
    assert story.picture.end is not None
    said = story.take([{**start, "at": "2026-01-05T10:09:00.000+00:00"}, _step(3, 9.0, 600)], "running")
    assert [line.text for line in said] == ["started again"]
    assert story.picture.end is None
    assert story.picture.losses == ((1.0, 2.9), (2.0, 2.8), (3.0, 9.0))
    assert story.picture.started.startswith("2026-01-05T10:09"), "the time runs from the newest start"


def test_time_left_comes_from_the_pace_unless_the_job_says() -> None:
    story = Story()
    story.take([_step(2, 1.0, 0), _step(4, 1.0, 10)], "running")
    assert story.picture.left == pytest.approx(30.0)
    story.take([{**_step(5, 1.0, 12), "left": 99.0}], "running")
    assert story.picture.left == 99.0
    story.take([{**_step(6, float("nan"), 13), "left": float("nan")}], "running")
    assert story.picture.figures["loss"] == 1.0, "a loss that is not a number is not shown"


def test_a_curve_keeps_its_first_and_last_point() -> None:
    points = [(float(n), float(n)) for n in range(5000)]
    kept = thinned(points)
    assert len(kept) == MOST_POINTS and kept[0] == points[0] and kept[-1] == points[-1]


@pytest.mark.parametrize(("width", "height"), [(34, 7), (39, 7), (16, 3), (120, 12)])
@pytest.mark.parametrize(
    "points", [[(1, 2.0), (2, 2.0)], [(1, 9.9), (50, -3.2)], [(n, 1 / n) for n in range(1, 400)]]
)
def test_a_chart_fits_its_box(points: list[tuple[float, float]], width: int, height: int) -> None:
    drawn = draw_chart(points, points[-1:], width, height)
    assert len(drawn) == height
    assert all(len(line) <= width and line.isascii() for line in drawn)


@pytest.mark.parametrize("share", [0.0, 0.004, 0.5, 0.999, 1.0, 7.0])
def test_a_gauge_keeps_its_percentage_at_any_width(share: float) -> None:
    assert ("." in gauge(share, 10)) == (share < 1), "only a full gauge looks full"
    for width in range(9, 40):
        line = gauge_line("Disk", share, "460 GB left", width)
        assert len(line) <= width and f"{share:.0%}" in line


def test_the_title_gives_way_in_the_sites_folder_first() -> None:
    for width in (40, 60, 80, 200):
        line = title_text(
            "/srv/a/very/long/way/to/the/folder/of/this/site", ["Jobs", "0007 train inbox"], "mira", width
        )
        assert len(line) <= width and line.endswith("mira") and "0007" in line


def test_lengths_of_time_in_words() -> None:
    assert [length(41), length(3723), length(273600)] == ["00:41", "1:02:03", "3 d 04 h"]


def test_the_two_lines_of_a_failure_are_those_of_the_job() -> None:
    end = {"event": "failed", "message": "No such column.", "hint": "The columns are: a, b."}
    title, text = end_text("0001", "import", Picture(state="failed", end=end)) or ("", "")
    assert (title, text) == ("Failed", "error: No such column.\ntry: The columns are: a, b.")


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        (
            "import",
            {
                "name": "inbox",
                "version": 2,
                "reused": True,
                "unit": None,
                "counts": {"train": 1610, "test": 20},
            },
            ["dataset inbox@2 (there already)", "records: 1,610 train, 20 test; no privacy unit declared"],
        ),
        (
            "train",
            {"name": "lora-0002", "steps": 50, "base": "demo-base", "privacy": None},
            ["adapter lora-0002, 50 steps on demo-base", "may repeat what it was trained on"],
        ),
        (
            "evaluate",
            {
                "models": [
                    {"name": "base", "accuracy": None},
                    {"name": "m", "accuracy": 0.5, "ci": [0.4, 0.6]},
                ],
                "gates": [{"model": "m", "passed": False}],
                "html": "/r/1.html",
            },
            ["m  accuracy 0.500 (0.400-0.600)", "gate FAIL  m", "report /r/1.html"],
        ),
        (
            "quantize",
            {"files": [{"type": "Q4_K_M", "name": "m-q4", "size": 2_900_000}]},
            ["Q4_K_M  m-q4  2.9 MB  proof PASS"],
        ),
    ],
)
def test_a_result_in_words(kind: str, result: dict[str, object], words: list[str]) -> None:
    picture = Picture(state="done", end={"event": "done", "result": result})
    _, text = end_text("0001", kind, picture) or ("", "")
    assert all(part in text for part in words), text


def test_a_result_of_another_shape_is_still_done() -> None:
    for result in (None, {}, [], {"models": 3}, {"name": "x", "counts": 2}):
        for kind in ("import", "train", "evaluate", "quantize", "serve", "else"):
            title, text = end_text(
                "0001", kind, Picture(state="done", end={"event": "done", "result": result})
            ) or ("", "")
            assert title == "Done" and text


def test_an_endpoint_shows_no_gauge() -> None:
    picture = Picture(
        state="running", stage="serving", done=3, total=3, ready={"url": "http://127.0.0.1:8080"}
    )
    text = run_text(picture, "serve m", 40)
    assert "[" not in text and "8080" in text


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("cloister job tail 0007", "open"),
        ("cloister evaluate lora-0002", "start"),
        ("cloister quantize lora-0002", "ask"),
        ("cloister serve lora-0002", "form"),
        ("cloister train inbox --base demo-base", "ask"),
        ("cloister model import demo --name demo-base", "form"),
        ("cloister model import FILE.gguf --name NAME", "form"),
        ("cloister model card lora-0002", "form"),
        ("cloister data import FILE --name NAME --text COLUMN", "form"),
        ("cloister chat lora-0002", "form"),
        ("a 'broken", "words"),
    ],
)
def test_enter_is_never_a_dead_key(command: str, kind: str) -> None:
    deed = deed_of(NextStep(text="t", why="w", command=command))
    assert deed.kind == kind and deed.words == command


@pytest.mark.parametrize(
    ("state", "stop", "resume"),
    [
        ("waiting", True, False),
        ("running", True, False),
        ("done", False, False),
        ("failed", False, True),
        ("stopped", False, True),
        ("died", False, True),
    ],
)
def test_what_can_be_done_to_a_job(state: str, stop: bool, resume: bool) -> None:
    job = JobRow(id="0001", kind="train", title="t", who="w", state=state, share=None, time="", said="")
    assert (why_not("stop", job) is None, why_not("resume", job) is None) == (stop, resume)


def test_an_import_counts_its_test_records_whole() -> None:
    """One stage told how many; a test that a stage is about is told by its name."""
    told = [
        {"event": "progress", "stage": "split", "done": 3, "total": 4, "train": 667, "val": 116, "test": 117},
        {"event": "progress", "stage": "attack", "done": 1, "total": 4, "test": "canaries"},
    ]
    story = Story()
    story.take([event | {"at": "2026-01-05T10:00:00.000+00:00"} for event in told], "running")
    said = [stage_line(story.picture, stage, 38) for stage in story.picture.stages]
    assert said == ["[x] split train 667 val 116 test 117", "[>] attack canaries  25%"]
    assert stage_line(story.picture, story.picture.stages[0], 30).endswith("..")


def test_a_failure_that_was_mended_needs_no_eye() -> None:
    failed, done = (
        JobRow(id=i, kind="import", title="import x", who="w", state=s, share=None, time="", said="")
        for i, s in (("0001", "failed"), ("0002", "done"))
    )
    for jobs, wanted in (((failed,), "! 0001 import x failed"), ((done, failed), "OK nothing waits")):
        view = SiteView(
            step=NextStep(text="", why="", command=""),
            jobs=jobs,
            datasets=(),
            models=(),
            passed={},
            accuracy={},
            budgets=(),
        )
        first = watch_text(view, [], [], 34).splitlines()[0]
        assert first.startswith(wanted) and not first.endswith("..")


def test_a_default_route_is_told_by_its_device() -> None:
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    local = "eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    out = "eth1 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n"
    zero = "0" * 32
    six = f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
    assert network(head + local, six) == "no route out   OK"
    assert network(head + local + out, "") == "a route out by eth1"
    out_6 = f"{zero} 00 {zero} 00 fe80{zero[4:]} 00000400 00000001 00000000 00000003 wlan0\n"
    assert network(head, out_6) == "a route out by wlan0"
    assert network(None, None) == "not known on this system"


def test_budgets_in_words() -> None:
    found = {"datasets": [{"name": "inbox", "epsilon_spent": 3.12, "epsilon_limit": 8.0}]}
    assert budget_lines(json.dumps(found).encode()) == ["budget inbox: eps 4.88 of 8 left"]
    assert "cloister budget show" in budget_lines(b'{"error": {}}')[0]


def test_command_line_and_door_do_without_textual() -> None:
    code = "import sys, tui.session, tui.cli, tui.launch; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_crash_of_the_screens_shows_where_and_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, shown = Cloister(Session(tmp_path)), list[object]()
    monkeypatch.setattr(app, "bell", lambda: None)
    monkeypatch.setattr(app, "panic", lambda *parts: shown.extend(parts))
    try:
        {}["Zoltan Quux"]
    except KeyError as problem:
        app._exception = problem
        app._fatal_error()
    assert "KeyError" in str(shown[0]) and "test_app_lines.py" in str(shown[0])
    assert "error: The screens stopped" in str(shown[1]) and "Traceback" in str(shown[0])
    assert 'Quux"]' in str(shown[0]) and "KeyError: " not in str(shown[0])  # the line of code; no value
