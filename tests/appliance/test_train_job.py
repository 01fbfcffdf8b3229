"""The training job on each kind of records, with what can go wrong in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.events import read_events
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import job as importing_job
from appliance.data import store
from appliance.models import importing, registry
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps, epsilon
from appliance.train import job as training
from appliance.train.plan import Plan
from appliance.train.result import privacy_of
from appliance.train.settings import Settings

COLUMNS: dict[str, dict[str, str]] = {
    "chat": {"chat": "m", "unit": "pid"},
    "text": {"text": "t", "unit": "pid"},
    "preference": {"prompt": "q", "chosen": "good", "rejected": "bad", "unit": "pid"},
}


def rows() -> list[dict[str, Any]]:
    found = []
    for number in range(160):
        asked, told = f"I wait for answer {number}.", f"We look at it, number {number % 7}."
        turns = [
            ("user", "Hello."),
            ("assistant", "Hello, what is it?"),
            ("user", asked),
            ("assistant", told),
        ]
        found.append(
            {
                "m": [{"role": role, "content": text} for role, text in turns],
                "t": f"Note {number}: waited. " * (80 if number == 0 else 1),
                "q": asked,
                "good": told,
                "bad": "No.",
                "pid": f"p{number}",
            }
        )
    return found


def a_job(home: Home, number: int, kind: str) -> Job:
    folder = home.jobs / f"{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    return Job(id=folder.name, kind=kind, folder=folder, home=home)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("site")
    home = open_home(folder / "home")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    for number, (kind, columns) in enumerate(COLUMNS.items(), start=1):
        spec = {"path": str(folder / "rows.jsonl"), "name": kind, "columns": columns, "unit_name": "patient"}
        importing_job.run(spec, a_job(home, number, "import"))
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="test")
    return home


def trained(home: Home, number: int, dataset: str, **settings: Any) -> dict[str, Any]:
    settings = {"steps": 2, "sample_rate": 0.1, "epsilon": 4.0, **settings}
    spec = {"dataset": dataset, "base": "demo-base", "name": f"m-{number}", "settings": settings}
    return training.run(spec, a_job(home, number, "train"))


def logs(home: Home, number: int) -> list[str]:
    events, _ = read_events(home.jobs / f"{number:04d}" / "events.jsonl")
    return [event["text"] for event in events if event["event"] == "log"]


@pytest.mark.slow
def test_chats_texts_and_preferences_are_trained_privately_and_told_as_such(site: Home) -> None:
    for number, (dataset, objective) in enumerate(
        {"chat": "sft", "text": "pretrain", "preference": "dpo"}.items(), start=10
    ):
        result = trained(site, number, dataset)
        entry = registry.get(site, result["name"])
        training_facts = entry.facts["training"]
        assert training_facts["settings"]["objective"] == objective
        assert result["privacy"]["steps_charged"] == 2 and result["privacy"]["epsilon"] <= 4.0
        assert Path(result["curves"]).read_bytes()[:4] == b"\x89PNG"
        assert [point["noise_ratio"] for point in training_facts["history"]] == pytest.approx(
            [1, 1], abs=0.06
        )
        assert [point["step"] for point in training_facts["history"]] == [1, 2]
    assert "preference pairs" in registry.get(site, "m-12").facts["privacy"]["adjacency"]
    assert any("longer than the base reads" in line for line in logs(site, 11)), "never silently cut"


@pytest.mark.slow
def test_a_teacher_must_be_private_where_its_pupil_is(site: Home) -> None:
    trained(site, 20, "chat", private=False, epsilon=None)
    with pytest.raises(PrivacyRefused, match="without differential privacy"):
        trained(site, 21, "chat", teacher="m-20", epsilon=8.0)
    spent = ledger.budget(site, "chat")
    result = trained(site, 22, "chat", teacher="m-20", private=False, epsilon=None)
    assert registry.get(site, result["name"]).facts["training"]["settings"]["objective"] == "distill"
    assert ledger.budget(site, "chat") == spent, "nothing was charged"


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("text", {"objective": "dpo"}),
        ("preference", {"objective": "sft"}),
        ("chat", {"objective": "distill"}),
        ("chat", {"objective": "sft", "teacher": "demo-base"}),
        ("chat", {"method": "full", "dropout": 0.1}),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_charged(
    site: Home, dataset: str, settings: dict[str, Any]
) -> None:
    before = ledger.budget(site, dataset)
    with pytest.raises(ConfigWrong):
        trained(site, 30, dataset, **settings)
    assert ledger.budget(site, dataset) == before


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_last_good_step_and_says_so(site: Home) -> None:
    result = trained(site, 41, "chat", private=False, epsilon=None, learning_rate=1e30, warmup_steps=0)
    assert result["stopped"] == "diverged" and result["steps"] == 1
    assert any("not numbers" in line and "are kept" in line for line in logs(site, 41))
    assert registry.intact(site, "m-41")


@pytest.mark.slow
def test_early_stopping_keeps_the_best_step_by_validation(site: Home) -> None:
    result = trained(
        site,
        50,
        "chat",
        private=False,
        epsilon=None,
        steps=20,
        learning_rate=0.5,
        early_stop=1,
        schedule="constant",
    )
    facts = registry.get(site, result["name"]).facts["training"]
    looks = {p["step"]: p["validation_loss"] for p in facts["history"] if "validation_loss" in p}
    assert facts["kept_step"] == min(looks, key=lambda step: looks[step])
    assert result["steps"] < 20 and result["stopped"] == "early"
    left = [file.name for file in (site.jobs / "0050").glob("best*")]
    assert left == [f"best-{facts['kept_step']}.safetensors"], "named by its step, so never paired wrongly"


@pytest.mark.slow
def test_the_claim_is_what_the_ledger_holds_whatever_the_plan_says(site: Home) -> None:
    result = trained(site, 60, "text", steps=3, epsilon=8.0)
    model = registry.get(site, result["name"])
    plan = Plan(**model.facts["training"]["plan"])
    kept = ledger.kept_plan(site, "0060")
    assert kept is not None and kept["plan"] == plan.as_dict()
    told = result["privacy"]
    assert "single-person mode: no second person approved" in told["people"]
    assert model.facts["people"] == told["people"]
    (event,) = [event for event in ledger.events(site, "text") if event["job"] == "0060"]
    paid = Steps(noise_multiplier=event["noise_multiplier"], sample_rate=0.1, steps=3)
    assert told["epsilon"] == pytest.approx(epsilon([paid], told["delta"]))
    softened = replace(plan, noise_multiplier=50.0, delta=1e-12)
    again = privacy_of(a_job(site, 60, "train"), softened, Settings(), store.get(site, "text"), 3)
    assert again is not None
    assert (again["epsilon"], again["delta"]) == (told["epsilon"], told["delta"])
    with pytest.raises(PrivacyRefused, match="4 steps were taken and 3 are in the ledger"):
        privacy_of(a_job(site, 60, "train"), plan, Settings(), store.get(site, "text"), 4)
