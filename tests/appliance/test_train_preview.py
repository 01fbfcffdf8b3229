"""The plan shown before a run: the figures of the run to come, and no trace in the home."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, NotFound, PrivacyRefused
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.job import run as import_records
from appliance.models import importing
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps
from appliance.train.memory import read_shape
from appliance.train.pace import matmul_speed, run_seconds, step_work
from appliance.train.preview import preview
from appliance.train.settings import Settings

SHAPE = read_shape(importing.DEMO_BASE)


@pytest.fixture
def site(home: Home) -> Home:
    """The demo base, and some of the made-up inbox."""
    importing.import_base(home, importing.DEMO_BASE, "base", who="test")
    folder = home.jobs / "0001"
    folder.mkdir()
    job = Job(id="0001", kind="import", folder=folder, home=home, who="test")
    import_records({"demo": True, "name": "inbox", "patients": 300, "columns": {}, "path": None}, job)
    return home


def planned(home: Home, **settings: Any) -> dict[str, Any]:
    return preview(home, {"dataset": "inbox", "base": "base", "settings": settings})


def rows(home: Home) -> dict[str, int]:
    with reading(home) as link:
        names = [row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: link.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608


def test_a_plan_leaves_no_trace(site: Home) -> None:
    before, files = rows(site), sorted(site.path.rglob("*"))
    planned(site)
    assert rows(site) == before and ledger.budget(site, "inbox") is None
    assert sorted(site.path.rglob("*")) == files


def test_it_says_who_is_protected_and_what_is_left(site: Home) -> None:
    told = planned(site, records_per_unit=2)
    dataset = store.get(site, "inbox")
    who, spent = told["protected"], told["epsilon"]
    assert (who["unit"], who["units"], who["records"]) == (
        "patient",
        dataset.units["train"],
        dataset.counts["train"],
    )
    assert 1 < who["mean"] < who["largest"] <= dataset.facts["records_per_unit"]["max"]
    assert (who["used"], who["used_in"]) == (2, "step")
    assert spent["before"] == 0 and spent["limit"] == 8 and 7.9 < spent["after"] <= 8
    assert spent["run"] == pytest.approx(spent["after"]) and spent["left"] == pytest.approx(0, abs=0.1)
    assert spent["delta"] == ledger.delta_for(who["units"])


def test_what_was_spent_before_counts(site: Home) -> None:
    dataset = store.get(site, "inbox")
    units = dataset.units["train"]
    ledger.open_budget(site, "inbox", unit="patient", units=units, delta=None, who="test")
    run = Steps(noise_multiplier=4.0, sample_rate=0.35, steps=55)
    ledger.Purse(site, "inbox", job="0009", run=run, limit=8.0).charge(55)
    told = planned(site, epsilon=6.0)["epsilon"]
    assert 1 < told["before"] < told["run"] < told["after"] <= 6.0
    assert told["after"] < told["before"] + told["run"], "histories compose, epsilons are not added"
    assert told["left"] == pytest.approx(8 - told["after"])
    with pytest.raises(PrivacyRefused, match="protects one patient at delta"):
        planned(site, delta=1e-6)


def test_the_plan_is_that_of_the_job(site: Home) -> None:
    """The same records in the job's own hands give the same private plan."""
    from appliance.models.encoding import Encoded
    from appliance.train.material import by_unit, sampled_together
    from appliance.train.plan import plan_private

    settings = Settings(sampling="record", records_per_unit=2, sample_rate=0.2)
    dataset = store.get(site, "inbox")
    records = store.read(dataset, "train")
    units = by_unit((record, Encoded(prompt=(1,), answer=(2,))) for record in records)
    groups = sampled_together(list(units.values()), settings)
    budget = ledger.Budget(
        dataset="inbox", unit="patient", epsilon_limit=8.0, delta=ledger.delta_for(len(units))
    )
    plan = plan_private(
        settings,
        units=len(units),
        candidates=len(groups),
        records=len(records),
        unit="patient",
        budget=budget,
    )
    told = planned(site, sampling="record", records_per_unit=2, sample_rate=0.2)
    assert {key: told[key] for key in plan.as_dict() if key != "epsilon"} == plan.as_dict()


def test_refusals_come_before_anything_starts(site: Home) -> None:
    for settings, error, words in (
        ({"delta": 0.1}, PrivacyRefused, "is not below 1/"),
        ({"epsilon": 9.0}, PrivacyRefused, "more than the limit"),
        ({"sample_rate": 0.0001}, PrivacyRefused, "fewer than one"),
        ({"targets": ["c_attn"]}, ConfigWrong, "no layers named c_attn"),
        ({"objective": "dpo"}, ConfigWrong, "cannot learn from"),
        ({"rank": 0}, ConfigWrong, "rank"),
    ):
        with pytest.raises(error, match=words):
            planned(site, **settings)
    with pytest.raises(NotFound):
        preview(site, {"dataset": "inbox", "base": "other"})


def test_warnings_say_what_will_not_work(site: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(site)["warnings"] == [] or planned(site)["noise_ratio"] > 1
    told = planned(site, method="full")
    assert told["noise_ratio"] > 1 and "patients instead of" in told["warnings"][0]
    assert planned(site, private=False)["warnings"] == []
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10**8}))
    assert "of memory and 0.1 GB are free" in planned(site, private=False)["warnings"][-1]


def test_without_privacy_nobody_is_said_to_be_protected(site: Home) -> None:
    told = planned(site, private=False)
    assert told["protected"] is None and told["epsilon"] is None and told["noise_ratio"] is None
    assert told["steps"] == round(3 * store.get(site, "inbox").counts["train"] / 64)


def test_memory_is_set_beside_full_fine_tuning(site: Home) -> None:
    told = planned(site)["memory"]
    assert told["total"] < told["full"] and told["free"] > 0
    full = planned(site, method="full")["memory"]
    assert full["total"] == full["full"] == told["full"]


def test_time_follows_the_work() -> None:
    lora, full = Settings(), Settings(method="full")
    work = {"tokens": 1000.0, "labelled": 100.0}
    assert step_work(SHAPE, full, **work) > step_work(SHAPE, lora, **work)
    assert step_work(SHAPE, Settings(checkpointing=True), **work) > step_work(SHAPE, lora, **work)
    assert step_work(SHAPE, Settings(method="head"), **work) < step_work(SHAPE, lora, **work)
    speed = matmul_speed()
    assert 1e8 < speed < 1e14
    slow, fast = (run_seconds(SHAPE, lora, steps=50, records=9.0, speed=pace, **work) for pace in (1e9, 1e10))
    assert slow > 2 * fast
    assert run_seconds(SHAPE, lora, steps=99, records=9.0, speed=1e9, **work) > slow
    assert run_seconds(
        SHAPE, replace(full, private=False), steps=50, records=9.0, speed=1e9, **work
    ) < run_seconds(SHAPE, full, steps=50, records=9.0, speed=1e9, **work), "noise takes time"


def test_a_plan_needs_no_torch(site: Home) -> None:
    code = (
        "import sys, pathlib; from tui.session import Session\n"
        "told = Session(pathlib.Path(sys.argv[1])).plan_training({'dataset': 'inbox', 'base': 'base'})\n"
        "assert told['steps'] and not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, site.path], check=True)
