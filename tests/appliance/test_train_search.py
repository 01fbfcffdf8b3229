"""The search job: every trial paid, the best kept, killed and gone on with, public only by declaration."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_train_job import a_job, logs, rows

from appliance.core.errors import BudgetSpent, ConfigWrong, Diverged, PrivacyRefused
from appliance.core.home import Home, open_home
from appliance.data import job as importing_job
from appliance.models import importing, registry
from appliance.ops import jobs
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps, epsilon, noise_for
from appliance.train import job as training
from appliance.train import run as training_run
from appliance.train import search as searching
from appliance.train.preview import preview
from appliance.train.result import _free_name
from appliance.train.searching import preview_search
from appliance.train.settings import Settings
from appliance.train.space import read_space
from appliance.train.trials import read_trials

SETTINGS = {"steps": 2, "sample_rate": 0.1, "epsilon": 4.0}


@pytest.fixture
def site(tmp_path: Path) -> Home:
    home = open_home(tmp_path / "home")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    columns = {"chat": "m", "unit": "pid"}
    spec = {"path": str(tmp_path / "rows.jsonl"), "name": "chat", "columns": columns, "unit_name": "patient"}
    importing_job.run(spec, a_job(home, 1, "import"))
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="test")
    return home


def spec_of(over: str, **more: Any) -> dict[str, Any]:
    settings = {**SETTINGS, **more.pop("settings", {})}
    return {"dataset": "chat", "version": 1, "base": "demo-base", "over": over, "settings": settings} | more


def charged(home: Home, job: str) -> int:
    return sum(event["steps"] for event in ledger.events(home, "chat") if event["job"] == job)


def audited(home: Home, what: str) -> list[dict[str, Any]]:
    from appliance.core.db import reading
    from appliance.security import audit

    with reading(home) as link:
        return [entry for entry in audit.tail(link, 50) if entry["what"] == what]


@pytest.mark.slow
def test_every_trial_is_paid_and_the_best_is_kept(site: Home) -> None:
    spec = spec_of("learning_rate=0.001..0.3,rank=2|4", trials=3, name="found")
    told = preview_search(site, spec)
    assert ledger.budget(site, "chat") is None, "a plan writes nothing"
    job = a_job(site, 2, "search")
    result = searching.run(spec, job)

    trials = read_trials(job.folder, read_space(spec["over"], Settings(), charged=True))
    assert [trial.state for trial in trials] == ["done"] * 3
    assert result["best"]["loss"] == min(trial.loss for trial in trials if trial.loss)
    assert charged(site, "0002") == 6, "three trials of two steps"
    (event,) = ledger.events(site, "chat")
    run = Steps(noise_multiplier=event["noise_multiplier"], sample_rate=0.1, steps=6)
    privacy = result["privacy"]
    assert privacy["epsilon"] == pytest.approx(epsilon([run], privacy["delta"])) and privacy["epsilon"] <= 4
    assert told["noise_multiplier"] == pytest.approx(event["noise_multiplier"])
    single = noise_for(4.0, delta=privacy["delta"], run=replace(run, steps=2))
    assert told["noise_single"] == pytest.approx(single) and single < event["noise_multiplier"]
    assert "best of 3 trials" in privacy["search"]
    assert any("which trial was kept" in text for text in privacy["not_protected"])

    entry = registry.intact(site, "found")[0]
    kept = entry.facts["training"]["settings"]
    assert {"learning_rate": kept["learning_rate"], "rank": kept["rank"]} == result["best"]["settings"]
    assert [trial["number"] for trial in entry.facts["search"]["tried"]] == [1, 2, 3]
    left = {path.parent.name for path in (job.folder / "trials").glob("*/*.safetensors")}
    assert left == {f"{result['best']['number']:03d}"}, "the weights of the others are gone"
    assert Path(result["plot"]).read_bytes()[:4] == b"\x89PNG"
    assert sum("best so far" in line for line in logs(site, 2)) >= 1


@pytest.mark.slow
def test_a_search_whose_trials_are_not_all_paid_releases_nothing(
    site: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training_run.train_setup

    def unpaid(*args: Any, **more: Any) -> Any:
        return real(*args, **{**more, "charged": more.get("title") == "trial 1/2"})

    monkeypatch.setattr(training_run, "train_setup", unpaid)
    with pytest.raises(PrivacyRefused, match="4 steps were taken and 2 are in the ledger"):
        searching.run(spec_of("rank=2|4", trials=2, name="cheap"), a_job(site, 2, "search"))
    assert [model.name for model in registry.models(site)] == ["demo-base"]


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trial_it_was_in(site: Home) -> None:
    job_id = jobs.start(site, "search", spec_of("rank=2|4|8", trials=3), title="search", who="mira")
    limit = time.monotonic() + 120
    while not any(
        event.get("stage") == "trial 2/3" and event["done"] >= 1 for event in jobs.view(site, job_id).events
    ):
        assert time.monotonic() < limit and jobs.view(site, job_id).state in ("waiting", "running")
        time.sleep(0.02)
    process = jobs._process(site, job_id)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    space = read_space("rank=2|4|8", Settings(), charged=True)
    before, paid = read_trials(site.jobs / job_id, space), charged(site, job_id)
    assert jobs.view(site, job_id).state == "died" and before[0].state == "done"
    jobs.resume(site, job_id, who="mira")
    ended = jobs.wait(site, job_id, 240)
    assert ended.state == "done", ended.end
    after = read_trials(site.jobs / job_id, space)
    assert after[0] == before[0] and after[1].settings == before[1].settings
    assert 6 <= charged(site, job_id) <= 7 and paid >= 3, "at most the step it was in is paid again"
    assert ended.end["result"]["privacy"]["epsilon"] <= 4
    for child in jobs._children.values():
        child.wait(60)


@pytest.mark.slow
def test_public_records_cost_nothing_give_settings_only_and_are_written_down(site: Home) -> None:
    result = searching.run(spec_of("rank=2|4", trials=2, public=True), a_job(site, 2, "search"))
    assert result["name"] is None and result["best"]["settings"]["rank"] in (2, 4)
    assert ledger.budget(site, "chat") is None
    assert [model.name for model in registry.models(site)] == ["demo-base"]
    (entry,) = audited(site, "dataset.public")
    assert entry["target"] == "chat" and entry["who"] == "operator"
    assert not list((site.jobs / "0002").rglob("*.safetensors")), "no weights are left either"
    settings = {**SETTINGS, "learning_rate": 0.3}
    spec = {"dataset": "chat", "version": 1, "base": "demo-base", "settings": settings}
    for refused in (lambda: training.run(spec, a_job(site, 3, "train")), lambda: preview(site, spec)):
        with pytest.raises(PrivacyRefused, match="was declared public"):
            refused()
    assert ledger.budget(site, "chat") is None


@pytest.mark.slow
def test_records_that_were_private_once_are_not_public(site: Home) -> None:
    searching.run(spec_of("rank=2|4", trials=2), a_job(site, 2, "search"))
    with pytest.raises(PrivacyRefused, match="cannot be public now"):
        searching.run(spec_of("rank=2|4", trials=2, public=True), a_job(site, 3, "search"))
    with pytest.raises(PrivacyRefused, match="cannot be public now"):
        preview_search(site, spec_of("rank=2|4", trials=2, public=True))
    assert audited(site, "dataset.public") == []


@pytest.mark.slow
def test_a_trial_that_diverges_is_told_and_another_is_kept(site: Home) -> None:
    bare = {"private": False, "epsilon": None}
    spec = spec_of("learning_rate=1e30|0.005", trials=2, name="open", settings=bare)
    result = searching.run(spec, a_job(site, 2, "search"))
    states = {trial["settings"]["learning_rate"]: trial["state"] for trial in result["tried"]}
    assert states == {1e30: "failed", 0.005: "done"}
    assert result["privacy"] is None and registry.get(site, "open").facts["privacy"] is None
    assert any("failed:" in line for line in logs(site, 2))
    with pytest.raises(Diverged, match="None of the 2 trials"):
        searching.run(
            spec_of("learning_rate=1e30|1e29", trials=2, name="none", settings=bare), a_job(site, 3, "search")
        )


@pytest.mark.parametrize(
    ("over", "more"),
    [
        ("steps=2..4", {}),
        ("rank=2|4", {"trials": 1}),
        ("rank=2|4", {"trials": 1000}),
        ("rank=2|4", {"settings": {"processes": 2}}),
        ("layers=1..9", {}),
        ("rank=2|4", {"trials": 3}),
    ],
)
def test_what_cannot_be_searched_is_refused_in_the_plan(site: Home, over: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigWrong):
        preview_search(site, spec_of(over, **more))
    assert ledger.budget(site, "chat") is None


@pytest.mark.slow
def test_what_was_learnt_without_privacy_stands_on_later_cards(site: Home) -> None:
    bare = {"private": False, "epsilon": None}
    searching.run(spec_of("rank=2|4", trials=2, name="open", settings=bare), a_job(site, 2, "search"))
    spec = {"dataset": "chat", "version": 1, "base": "demo-base", "settings": SETTINGS}
    told = training.run(spec, a_job(site, 3, "train"))["privacy"]["not_protected"]
    assert any("1 earlier runs on these records without privacy (job 0002)" in text for text in told)


@pytest.mark.slow
def test_a_trial_that_the_budget_cut_short_is_kept_as_it_was_and_the_rest_is_tried_later(site: Home) -> None:
    spec, job = spec_of("rank=2|4", trials=2, name="cut"), a_job(site, 2, "search")
    real = ledger.Purse.charge

    def poor(self: ledger.Purse, steps: int, **facts: Any) -> None:
        if charged(site, "0002") >= limit[0]:
            raise BudgetSpent("Spent.", "Wait.")
        real(self, steps, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.Purse, "charge", poor)
        limit = [1]
        patch.setattr(searching, "_kept", lambda job, spec, search, name, trials, best: {"tried": trials})
        tried = searching.run(spec, job)["tried"]
        assert [trial.state for trial in tried] == ["done", "unpaid"]
        assert tried[0].stopped == "budget" and tried[0].steps == charged(site, "0002") == 1
    again = searching.run(spec, job)
    assert [trial["state"] for trial in again["tried"]] == ["done", "done"]
    assert [trial["steps"] for trial in again["tried"]] == [1, 2] and charged(site, "0002") == 3
    assert again["steps"] == again["best"]["steps"], "what is released is what was judged"


@pytest.mark.slow
def test_files_changed_by_hand_are_refused_and_the_claim_follows_the_ledger(site: Home) -> None:
    spec, job = spec_of("rank=2|4", trials=2), a_job(site, 2, "search")
    searching.run(spec, job)
    file = job.folder / "trials" / "001" / "trial.json"
    whole = json.loads(file.read_text())
    for change in ({"settings": {**whole["settings"], "private": False}}, {"number": 7}, {"state": "great"}):
        file.write_text(json.dumps(whole | change))
        with pytest.raises(ConfigWrong, match="were changed"):
            searching.run(spec, job)
    file.write_text("")
    with pytest.raises(ConfigWrong, match="were changed"):
        searching.run(spec, job)
    file.write_text(json.dumps(whole))
    with pytest.raises(ConfigWrong, match="not those this run was planned with"):
        searching.run(spec_of("rank=2|4", trials=2, settings={"seed": 1}), job)
    assert charged(site, "0002") == 4


def test_a_name_that_was_taken_meanwhile_is_no_loss(site: Home) -> None:
    job = a_job(site, 9, "train")
    assert _free_name(job, "fresh") == "fresh"
    assert _free_name(job, "demo-base") == "demo-base-0009"
    assert any("meanwhile" in line for line in logs(site, 9))
