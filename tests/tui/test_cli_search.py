"""What an operator sees of a search: the plan, the trials, what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli_train import PREVIEW, text

from appliance.models import registry
from appliance.ops.jobs import JobView
from appliance.train.settings import Settings
from tui.cli.entry import run
from tui.cli.face import Face
from tui.cli.search import as_options
from tui.screens.job_results import result_lines
from tui.session import Session

PLANNED = {
    **PREVIEW,
    "trials": 3,
    "over": {"learning_rate": "0.05..0.4", "freeze_a": "True|False"},
    "public": False,
    "noise_single": 1.234,
}


def trial(number: int, loss: float | None, rate: float) -> dict[str, Any]:
    state = "done" if loss is not None else "failed"
    settings = {"learning_rate": rate, "freeze_a": False}
    return {"number": number, "settings": settings, "state": state, "loss": loss, "steps": 5, "seconds": 61.0}


TRIALS = [trial(1, 2.5, 0.2), trial(2, None, 0.4), trial(3, 1.25, 0.05)]
RESULT = {
    "name": "lora-0001",
    "base": "demo-base",
    "steps": 5,
    "privacy": {
        "epsilon": 7.99,
        "delta": 6.2e-5,
        "unit": "patient",
        "epsilon_dataset": 7.99,
        "epsilon_limit": 8,
    },
    "over": PLANNED["over"],
    "tried": TRIALS,
    "best": TRIALS[2],
    "importance": {"learning_rate": 0.9, "freeze_a": 0.1},
    "plot": "/reports/0001-trials.png",
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A session whose searches are only written down, and end with RESULT."""
    specs: list[dict[str, Any]] = []

    def start(self: Session, spec: dict[str, Any]) -> str:
        specs.append(spec)
        return "0001"

    def follow(self: Face, job_id: str, **more: Any) -> JobView:
        result = RESULT | ({"name": None, "privacy": None} if specs[-1]["public"] else {})
        end = {"event": "done", "result": result}
        return JobView(
            id=job_id, kind="search", title="", who="", created="", state="done", folder=Path(), events=(end,)
        )

    def base(self: Session, name: str | None) -> registry.Model:
        return registry.Model(name="demo-base", kind="base", path=Path("x"), sha256="0", size=1)

    monkeypatch.setattr(Session, "plan_search", lambda self, spec: PLANNED | {"public": spec["public"]})
    monkeypatch.setattr(Session, "start_search", start)
    monkeypatch.setattr(Session, "base", base)
    monkeypatch.setattr(Face, "follow", follow)
    return specs


def test_the_plan_says_what_all_trials_cost(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", "inbox", "--plan"]) == 0
    told = text([capsys.readouterr().out])
    assert started == []
    assert "3 trials of 50 steps over learning_rate 0.05..0.4, freeze_a True|False" in told
    assert "(one run alone would have 1.234)" in told
    assert run(["search", "inbox", "--plan", "--public"]) == 0
    told = text([capsys.readouterr().out])
    assert "DECLARED PUBLIC: nothing is charged" in told and "spent so far" not in told


def test_the_trials_are_a_table_with_the_best_first(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", "inbox", "--over", "rank=2|4", "--trials", "3", "--rank", "2", "--name", "x"]) == 0
    out = capsys.readouterr().out.splitlines()
    at = next(place for place, line in enumerate(out) if line.startswith("trial "))
    assert [line.split()[0] for line in out[at + 2 : at + 5]] == ["3", "1", "2"]
    assert out[at + 2].split() == ["3", "0.05", "False", "1.2500", "5", "01:01", "done"]
    assert out[at + 4].split()[3] == "-"
    told = text(out)
    assert "learning_rate 90%, freeze_a 10%" in told and "/reports/0001-trials.png" in told
    assert "lora-0001: trial 3" in told and "epsilon 7.99" in told
    (spec,) = started
    assert (spec["over"], spec["trials"], spec["public"], spec["name"]) == ("rank=2|4", 3, False, "x")
    assert spec["settings"] | {"processes": 1} == Settings(rank=2).as_dict()


def test_a_public_search_ends_in_a_command(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", "inbox", "--public"]) == 0
    told = text([capsys.readouterr().out])
    assert "cloister train DATASET --base demo-base --learning-rate 0.05 --train-a" in told
    assert run(["search", "inbox", "--public", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] is None


def test_settings_read_as_options() -> None:
    tried = {"settings": {"rslora": True, "warmup_steps": 3, "schedule": "cosine", "weight_decay": 0.123456}}
    assert as_options(tried) == "--rslora --warmup-steps 3 --schedule cosine --weight-decay 0.123"
    assert as_options({"settings": {"rslora": False, "freeze_a": True}}) == "--freeze-a"


def test_the_job_screen_says_what_was_found() -> None:
    lines = result_lines("search", RESULT)
    assert "best: trial 3 (learning_rate 0.05, freeze_a False)" in lines[0] and "epsilon 7.99" in lines[-1]
