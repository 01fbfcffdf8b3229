"""Records in, private INT4 model served: real commands, real processes, no network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home, open_home
from appliance.data import inbox
from appliance.models import registry
from appliance.ops import jobs
from appliance.privacy import ledger
from tui.session import Session

_SCRIPT = Path(__file__).parent / "chain.py"


def alone() -> list[str]:
    """The words that start a process in an empty network namespace, where the kernel allows it."""
    words = ["unshare", "-rn"]
    if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
        return words
    return []


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("chain")
    words = alone()
    done = subprocess.run(
        [*words, sys.executable, str(_SCRIPT), str(folder), *(["--alone"] if words else [])],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_export_becomes_a_dataset_by_patient(said: dict[str, Any]) -> None:
    found = said["import"]
    assert found["name"] == "inbox" and found["version"] == 1
    assert sum(found["counts"].values()) > 1000


def test_private_training_states_its_claim_and_is_charged(said: dict[str, Any]) -> None:
    privacy = said["train"]["privacy"]
    assert said["train"]["name"] == "tuned"
    assert 7.5 < privacy["epsilon"] <= 8.0 and privacy["unit"] == "patient"
    assert privacy["delta"] <= 0.1 / privacy["declared_units"]
    (budget,) = said["budget"]["datasets"]
    assert budget["epsilon_spent"] == pytest.approx(privacy["epsilon"])
    assert sum(event["steps"] for event in budget["events"]) == 3


def test_every_file_carries_its_proof(said: dict[str, Any]) -> None:
    files = {file["type"]: file for file in said["quantize"]["files"]}
    gates = {gate["model"] for gate in said["quantize"]["report"]["gates"]}
    assert {file["name"] for file in files.values()} <= gates  # measured at once, as served
    assert {"F16", "Q8_0", "Q4_K_M"} <= set(files)
    assert all(file["proof"]["verdict"] == "PASS" for file in files.values())
    assert files["F16"]["proof"]["logits"]["F16"]["kl_mean"] < 1e-4
    assert files["Q4_K_M"]["size"] < files["Q8_0"]["size"] < files["F16"]["size"]


def test_base_tuned_and_files_are_measured_together(said: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in said["evaluate"]["models"]}
    assert set(rows) == {"demo-base", "tuned", "tuned-f16", "tuned-q8_0", "tuned-q4_k_m"}
    for row in rows.values():
        low, high = row["ci"]
        assert 0 <= low <= row["accuracy"] <= high <= 1 and row["perplexity"] > 1
    assert rows["tuned"]["accuracy"] == pytest.approx(rows["tuned-f16"]["accuracy"], abs=0.02)
    page = Path(said["evaluate"]["html"]).read_text()
    assert "<svg" in page and "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_endpoint_answers_labels_to_the_stock_client(said: dict[str, Any]) -> None:
    assert said["chat"]["answer"] in inbox.LABELS and 0 < said["chat"]["confidence"] <= 1
    assert said["openai"]["label"] in inbox.LABELS
    assert said["openai"]["streamed"] == said["openai"]["label"]
    assert said["openai"]["model"] == "tuned-q4_k_m"


def test_a_model_that_failed_its_gate_is_not_served_and_a_taken_port_is_named(said: dict[str, Any]) -> None:
    assert said["refused"]["exit"] == 6 and "--ungated" in said["refused"]["stderr"]
    assert said["taken"]["exit"] == 9 and "18231" in said["taken"]["stderr"]


def test_every_change_left_an_audit_line(said: dict[str, Any]) -> None:
    what = {entry["what"] for entry in said["audit"]["entries"]}
    assert {"job.start", "job.stop", "model.add", "budget.open", "key.new", "key.revoke"} <= what
    assert [job["state"] for job in said["jobs"]["jobs"] if job["kind"] == "serve"].count("stopped") <= 2


def _prepared(home: Home) -> Session:
    session = Session(home.path)
    session.demo_base()
    spec = {"path": None, "demo": True, "name": "inbox", "columns": {}, "patients": 300}
    assert jobs.wait(home, session.start_import(spec), 120).state == "done"
    return session


def test_training_killed_in_the_middle_goes_on_and_pays_for_what_it_repeats(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    settings = {"steps": 8, "sample_rate": 0.2, "epsilon": 4.0}
    job_id = session.start_training(
        {"dataset": "inbox", "base": "demo-base", "name": "tuned", "settings": settings}
    )
    limit = time.monotonic() + 120
    while jobs.view(home, job_id).last.get("stage") != "train" and time.monotonic() < limit:
        time.sleep(0.01)
    process = jobs._process(home, job_id)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert jobs.view(home, job_id).state == "died"
    assert [model.name for model in session.models()] == ["demo-base"]
    taken = jobs.view(home, job_id).last["done"]
    session.resume_job(job_id)
    job = jobs.wait(home, job_id, 300)
    assert job.state == "done", job.end
    privacy = session.model("tuned").facts["privacy"]
    charged = sum(event["steps"] for event in ledger.events(home, "inbox"))
    assert taken < 8 and job.end["result"]["steps"] == privacy["steps_released"] <= charged
    assert privacy["steps_charged"] == charged == 8, "a repeated step is paid for out of the same epsilon"
    assert 3.5 < privacy["epsilon"] <= privacy["epsilon_dataset"] <= 4.0


def test_a_taken_name_is_refused_before_anything_is_charged_or_replaced(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    spec = {"dataset": "inbox", "base": "demo-base", "name": "demo-base", "settings": {"steps": 1}}
    with pytest.raises(ConfigWrong, match="already"):
        session.start_training(spec)
    job = jobs.wait(home, jobs.start(home, "train", spec, title="train", who="test"), 120)
    assert job.state == "failed" and job.end["code"] == "config-wrong"
    assert ledger.budgets(home) == []
    assert registry.intact(home, "demo-base")[0].kind == "base"


def test_a_site_sets_its_budget_and_a_run_keeps_to_it(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    session.set_budget("inbox", 2.0)
    spec = {"dataset": "inbox", "base": "demo-base", "settings": {"steps": 2}}
    job = jobs.wait(home, session.start_training(spec), 120)
    assert job.state == "done" and 1.5 < job.end["result"]["privacy"]["epsilon_dataset"] <= 2.0
    again = jobs.wait(home, session.start_training(spec), 120)
    assert again.state == "failed" and "budget set" in again.end["hint"]
    session.set_budget("inbox", 3.0)
    assert jobs.wait(home, session.start_training(spec), 120).state == "done"
    assert session.budgets()[0]["epsilon_spent"] <= 3.0


def test_a_model_whose_files_were_changed_is_not_used(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    (session.model("demo-base").path / "config.json").write_text("{}")
    judge = {"models": ["demo-base"], "against": None, "dataset": "inbox", "split": "test"}
    for begun in (
        session.start_training({"dataset": "inbox", "base": "demo-base"}),
        session.start_quantising({"model": "demo-base", "types": ["F16"]}),
        session.start_evaluation(judge),
    ):
        job = jobs.wait(home, begun, 120)
        assert job.state == "failed" and "not those that were entered" in job.end["message"], job.end


def test_without_privacy_is_said_and_costs_nothing(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    settings = {"private": False, "steps": 2}
    job_id = session.start_training(
        {"dataset": "inbox", "base": "demo-base", "name": "open", "settings": settings}
    )
    assert jobs.wait(home, job_id, 300).state == "done"
    assert session.model("open").facts["privacy"] is None
    assert ledger.budgets(home) == []


def test_private_training_without_a_unit_is_refused(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = Session(home.path)
    session.demo_base()
    source = tmp_path / "a.csv"
    source.write_text("text,label\n" + "".join(f"words {n},{'ab'[n % 2]}\n" for n in range(300)))
    spec = {"path": str(source), "name": "loose", "columns": {"text": "text", "label": "label"}}
    assert jobs.wait(home, session.start_import(spec), 120).state == "done"
    job = jobs.wait(home, session.start_training({"dataset": "loose", "base": "demo-base"}), 120)
    assert job.state == "failed" and job.end["code"] == "privacy-refused"
    assert "--unit" in job.end["hint"]


def test_a_label_that_could_name_somebody_stops_private_training(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = Session(home.path)
    session.demo_base()
    source = tmp_path / "a.csv"
    rows = [f"I need help with thing {n},{'ab'[n % 2]},p{n}\n" for n in range(300)]
    source.write_text(
        "text,label,patient\n" + "".join(rows) + "please help,Jane Doe,p999\nme too,Jane Doe,p998\n"
    )
    columns = {"text": "text", "label": "label", "unit": "patient"}
    spec: dict[str, Any] = {"path": str(source), "name": "loose", "columns": columns}
    assert jobs.wait(home, session.start_import(spec), 120).state == "done"
    train = {"dataset": "loose", "base": "demo-base", "settings": {"steps": 1}}
    job = jobs.wait(home, session.start_training(train), 120)
    assert job.state == "failed" and job.end["code"] == "privacy-refused" and "--labels" in job.end["hint"]
    declared = spec | {"labels": ["a", "b", "c"]}
    found = jobs.wait(home, session.start_import(declared), 120).end["result"]
    assert found["labels"] == ["a", "b", "c"] and found["facts"]["dropped"]["label not declared"] == 2
    assert jobs.wait(home, session.start_training(train), 120).state == "done"


def test_a_stopped_run_goes_on_with_the_records_and_settings_it_was_planned_with(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    session = _prepared(home)
    train = {"dataset": "inbox", "base": "demo-base", "settings": {"steps": 6}}
    job_id = session.start_training(train)
    limit = time.monotonic() + 120
    while jobs.view(home, job_id).last.get("stage") != "train" and time.monotonic() < limit:
        time.sleep(0.01)
    assert session.stop_job(job_id).state == "stopped"
    more = {"path": None, "demo": True, "name": "inbox", "columns": {}, "patients": 200, "seed": 5}
    assert jobs.wait(home, session.start_import(more), 120).state == "done"
    order = home.jobs / job_id / "spec.json"
    kept = order.read_text()
    order.write_text(kept.replace('"steps": 6', '"steps": 6,\n"private": false'))
    session.resume_job(job_id)
    job = jobs.wait(home, job_id, 120)
    assert job.state == "failed" and "planned with" in job.end["message"]
    order.write_text(kept)
    session.resume_job(job_id)
    job = jobs.wait(home, job_id, 300)
    assert job.state == "done", job.end
    assert session.model(job.end["result"]["name"]).dataset == "inbox@1"
