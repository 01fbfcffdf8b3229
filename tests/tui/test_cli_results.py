"""What `job tail`, `job resume` and `budget` say at the end: the result, the way on, what cannot be."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import app_site as a
import pytest
from test_cli_search import RESULT

from appliance.core.db import transaction
from appliance.core.home import Home
from appliance.security import audit
from tui import session_privacy
from tui.cli.entry import run
from tui.cli.face import Face
from tui.session import Session


def searched(home: Home, **more: Any) -> None:
    folder = a.job(home, "search", "search inbox")
    a.tell(folder, "started", kind="search")
    a.tell(folder, "progress", stage="load", done=0, total=1)
    a.tell(folder, "done", result=RESULT | more)


def test_the_tail_of_a_finished_search_shows_what_it_found(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(home)
    a.models(home)
    assert run(["job", "tail", "1"]) == 0
    out = capsys.readouterr().out
    assert "load" not in out and "trial  learning_rate" in out and "1.2500" in out
    assert "lora-0001: trial 3, 5 steps" in out and "epsilon 7.99" in out
    assert "Next: cloister" in out
    searched(home, name=None, privacy=None)
    assert run(["job", "tail", "2", "--json"]) == 0
    told = capsys.readouterr()
    command = "cloister train DATASET --base demo-base --learning-rate 0.05 --train-a"
    assert json.loads(told.out)["next"] == command and f"Next: {command}" in told.err


def test_the_tail_names_the_next_step_of_the_model_the_job_was_about(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    a.models(home)
    folder = a.job(home, "quantize", "quantise lora-0002")
    (folder / "spec.json").write_text(json.dumps({"spec": {"model": "lora-0002"}}))
    a.tell(folder, "done", result={"files": "of another version"})
    assert run(["job", "tail", "1"]) == 0
    out = capsys.readouterr().out
    assert "Next: cloister evaluate lora-0002" in out and "the gate." in out


def test_the_tail_of_a_job_that_died_says_the_way_on(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a.job(home, "train", "train inbox")
    a.tell(folder, "started", kind="train")
    (folder / "log.txt").write_text("loading\nKilled by the kernel\n")
    assert run(["job", "tail", "1"]) == 0
    told = capsys.readouterr()
    assert "Its last line: Killed by the kernel" in told.err
    assert "cloister job resume 0001" in told.err and "run the same command again" in told.err
    assert "Next:" not in told.out


def test_a_resumed_job_ends_with_its_result_and_the_next_step(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a.job(home, "search", "search inbox")

    def resume(self: Session, job_id: str) -> None:
        a.tell(folder, "done", result=RESULT)

    monkeypatch.setattr(Session, "resume_job", resume)
    assert run(["job", "resume", "1"]) == 0
    out = capsys.readouterr().out
    assert "trial  learning_rate" in out and "Next: cloister data import" in out


EVENT = {"steps": 5, "noise_multiplier": 1.0, "sample_rate": 0.1, "first": "2026-01-01T10:00:00"}
BUDGET = {"name": "inbox", "unit": "patient", "epsilon_spent": 5.0, "epsilon_limit": 8.0, "delta": 1e-5}


def test_a_budget_says_that_runs_are_composed_and_when_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(jobs: int, spent: float) -> str:
        row = BUDGET | {"epsilon_spent": spent}
        runs = [EVENT | {"job": f"{n:04d}", "epsilon_after": spent} for n in range(jobs)]
        monkeypatch.setattr(Session, "budgets", lambda self: [row])
        monkeypatch.setattr(session_privacy, "charges", lambda session, dataset: runs)
        assert run(["budget", "show"]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "composed, not added" in shown(2, 5.0) and "composed" not in shown(1, 5.0)
    assert "Nothing more can be trained on inbox" in shown(1, 8.0) and "Nothing more" not in shown(1, 5.0)


def test_a_budget_below_what_is_spent_is_allowed_and_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "set_budget", lambda self, dataset, epsilon: 5.0)
    assert run(["budget", "set", "inbox", "--epsilon", "3"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "5.00 is spent" in told and "WARNING" in told and "nothing more can be trained on inbox" in told
    assert run(["budget", "set", "inbox", "--epsilon", "8", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "WARNING" not in err and json.loads(out)["epsilon_spent"] == 5.0


def test_the_list_has_what_runs_however_old_and_says_what_is_cut(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        folder = a.job(home, "train", f"train {number}")
        a.tell(folder, "started", kind="train")
        if number:
            a.tell(folder, "done", result={})
    with transaction(home) as link:
        link.execute("UPDATE jobs SET pid = ?, pid_started = ? WHERE id = '0001'", a.me())
    assert run(["job", "list", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "0004" in out and "0001" in out and "running" in out
    assert "0003" not in out and "2 more: cloister job list --limit 4" in out
    assert run(["job", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["jobs"]) == 4
    assert run(["job", "list", "--limit", "0"]) == 2


def test_the_audit_says_what_was_served_without_a_gate(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with transaction(home) as link:
        audit.record(link, who="mira", what="serve.start", target="bare", ungated=True)
        audit.record(link, who="mira", what="serve.start", target="tuned", ungated=False)
    assert run(["audit", "tail", "-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert ["ungated" in line for line in lines] == [True, False]


def test_a_long_next_command_goes_on_as_a_shell_reads_it(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    Face(home.path, False).next()
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert len(first) < 80 and first.endswith(" \\") and second.startswith("      --")


@pytest.mark.parametrize("words", ["quantize", "serve", "key new", "demo", "feedback export"])
def test_the_paragraphs_of_help_flow(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words.split(), "--help"]) == 0
    told = capsys.readouterr().out.split("\u256d")[0].splitlines()[2:]
    for line, after in pairwise(told):
        if line.strip() and after.strip():  # the next word had no room
            assert len(line.rstrip()) + 1 + len(after.split()[0]) > 79, line
