"""The command line's own manners: wrong words, versions, homes, what is shown of a job."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import app_site as a
import pytest

from appliance.core.home import Home, open_home
from appliance.models import registry
from tui.cli.entry import run
from tui.cli.lines import Lines, newest_run, progress_line
from tui.session import Session

STEP = {
    "event": "progress",
    "stage": "train",
    "done": 20,
    "total": 50,
    "loss": 2.9,
    "validation_loss": 3.0,
    "epsilon": 3.12,
    "clipped": 0.61,
    "tokens_per_second": 41200.0,
    "left": 72.0,
}


@pytest.mark.parametrize(
    ("words", "said", "asked"),
    [
        ("train x --epsilon abc", "'abc' is not a valid float", "cloister train --help"),
        ("job resume", "Missing argument", "cloister job resume --help"),
        ("serve m --port 80000", "80000 is not in the range", "cloister serve --help"),
        ("train x --epsilom 3", "No such option '--epsilom'", "cloister train --help"),
        ("job sotp", "No such command 'sotp'", "cloister job --help"),
        ("tarin", "No such command 'tarin'", "cloister --help"),
        ("job", "No such option '--json'", "cloister job --help"),
    ],
)
def test_wrong_words_are_told_in_two_lines_and_as_json(
    words: str, said: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words.split(), "--json"]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("error: ") and second == f"try: {asked}"
    error = json.loads(out)["error"]
    assert said in first
    assert error == {"code": "config-wrong", "message": first[7:], "hint": asked}


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "x", "--", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[1] == "try: cloister train --help"


def test_help_version_and_a_group_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0 and "--epsilon" in capsys.readouterr().out
    assert run(["--version"]) == 0 and capsys.readouterr().out.startswith("cloister 0.")
    assert run(["job"]) == 2 and "resume" in capsys.readouterr().out


def test_a_home_before_the_command_counts_unless_the_command_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "environment"))
    a.models(open_home(tmp_path / "one"))

    def names(*words: str) -> list[str]:
        assert run([*words, "--json"]) == 0
        return [model["name"] for model in json.loads(capsys.readouterr().out)["models"]]

    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert len(names("--home", one, "model", "list")) == 3
    assert names("--home", one, "model", "list", "--home", two) == []
    assert not (tmp_path / "environment").exists()


def test_a_home_alone_opens_the_screens_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: The screens need a terminal.\ntry: cloister --help\n"
    opened: list[tuple[Path | None, bool]] = []
    monkeypatch.setattr("tui.launch.on_terminal", lambda: True)
    monkeypatch.setattr("tui.app.run", lambda home, *, look: opened.append((home, look)))
    assert run(["--home", str(tmp_path)]) == 0 and run(["--look", "--home", str(tmp_path)]) == 0
    assert opened == [(tmp_path, False), (tmp_path, True)]


def test_the_live_line_fits_and_keeps_what_matters() -> None:
    full = progress_line(STEP, left=72.0)
    assert "41,200 tok/s" in full and len(full) > 80
    for width in (119, 79, 59, 40):
        line = progress_line(STEP, left=72.0, width=width)
        assert len(line) <= width
        assert width < 50 or "left 01:12" in line
    assert "loss 2.900" in progress_line(STEP, left=72.0, width=79)
    assert "eps <= 3.12" in progress_line(STEP, left=72.0, width=79)


def test_a_terminal_of_80_columns_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    Lines(lambda text: None, live=True).show(STEP)
    drawn = screen.getvalue().removeprefix("\r\x1b[K")
    assert "\n" not in drawn and len(drawn) < 80 and drawn.endswith("left 01:12")


def test_of_a_jobs_past_only_the_newest_run_is_shown() -> None:
    plan: dict[str, Any] = {"event": "plan", "steps": 50}
    first = [{"event": "started"}, plan, {**STEP, "done": 5}, {**STEP, "done": 6}, {"event": "stopped"}]
    again = [{"event": "started"}, {"event": "log", "text": "on"}, {**STEP, "done": 7}, {**STEP, "done": 8}]
    kept = newest_run([*first, *again])
    assert [event.get("done", event["event"]) for event in kept] == ["plan", "started", "log", 8]
    assert "left" not in kept[-1]
    told: list[str] = []
    lines = Lines(told.append, live=False)
    for event in kept[2:]:
        lines.show(event)
    assert len(told) == 2 and "left" not in told[1], "no pace is known from one look"


def test_resume_shows_nothing_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_home(tmp_path)
    folder = a.job(home, "train", "train inbox")
    a.tell(folder, "started", kind="train")
    a.tell(folder, "log", text="the run before")
    a.tell(folder, "stopped")

    def resume(self: Session, job_id: str) -> None:
        assert job_id == "0001", "leading zeros may be left out"
        a.tell(folder, "started", kind="train")
        a.tell(folder, "log", text="Goes on after step 20.")
        a.tell(folder, "done", result={})

    monkeypatch.setattr(Session, "resume_job", resume)
    assert run(["job", "resume", "1", "--home", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Goes on after step 20." in out and "the run before" not in out


def test_a_budget_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["budget", "show", "nope", "--json"]) == 3
    out, err = capsys.readouterr()
    assert "error: There is no dataset nope." in err and json.loads(out)["error"]["code"] == "not-found"
    assert run(["budget", "show"]) == 0 and "No budget was used yet." in capsys.readouterr().out
    monkeypatch.setattr(Session, "dataset", lambda self, name: None)
    assert run(["budget", "show", "notes"]) == 0
    assert "Nothing was spent: notes was never trained on" in capsys.readouterr().out


def test_a_card_rounds_for_people_and_not_for_programs(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    a.models(home)
    exact = {"noise_multiplier": 0.6860202342218633, "delta": 0.0007800000000000001}
    one = registry.Model(
        name="lora-0009",
        kind="adapter",
        path=home.models / "x",
        sha256="0" * 64,
        size=1,
        facts={"privacy": exact},
    )
    registry.add(home, one, who="mira")
    assert run(["model", "card", "demo-base"]) == 0
    told = capsys.readouterr().out
    assert "7.4 MB" in told and "sha256 64656d6f2d62" in told
    assert run(["model", "card", "lora-0009"]) == 0
    told = capsys.readouterr().out
    assert "0.686\n" in told and "0.00078\n" in told
    assert run(["model", "card", "lora-0009", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["privacy"] == exact


def test_help_tells_what_an_argument_is(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["serve"], "adapters that have GGUF files"),
        (["key", "revoke"], "The key's id"),
        (["docs", "add"], "A folder with .txt"),
    ):
        assert run([*words, "--help"]) == 0
        assert told in " ".join(capsys.readouterr().out.split())


def test_a_package_that_the_edge_profile_lacks_is_told_in_two_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(session: Session) -> None:
        raise ModuleNotFoundError("No module named 'scipy.signal'", name="scipy.signal")

    monkeypatch.setattr(Session, "models", lacks)
    assert run(["model", "list", "--json"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: This installation lacks scipy.\ntry: ") and "PROFILE=site" in said.err
    assert json.loads(said.out)["error"]["code"] == "config-wrong"
