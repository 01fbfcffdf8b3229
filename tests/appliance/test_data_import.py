from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.core import files
from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, ConfigWrong, DataRejected, NoRoom, NotFound
from appliance.core.events import read_events
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import inbox, store
from appliance.data.job import plan_from, run
from appliance.models.task import PROMPT
from appliance.security import audit


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def a_job(home: Home, name: str = "j1") -> Job:
    folder = home.jobs / name
    folder.mkdir(exist_ok=True)
    return Job(id=name, kind="import", folder=folder, home=home)


def events(job: Job) -> list[dict]:
    return read_events(job.folder / "events.jsonl")[0]


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "letters.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["patient", "message", "queue", "written", "sex"])
        for n in range(120):
            rows.writerow([f"P{n % 40}", f'the "secret" words,\nnumber {n}', "ab"[n % 2], "2025-01-01", "f"])
        rows.writerow(["P1", "", "a", "", ""])
        rows.writerow(["", "no patient", "a", "", ""])
        rows.writerow(["P0", 'THE "secret" words, number 0', "a", "", ""])
    return path


COLUMNS = {"text": "message", "label": "queue", "unit": "patient", "date": "written", "facts": ["sex"]}


def test_a_csv_becomes_a_dataset(home, letters):
    job = a_job(home)
    result = run({"path": str(letters), "name": "letters", "columns": COLUMNS}, job)
    assert (result["name"], result["version"], result["reused"]) == ("letters", 1, False)
    dataset = store.get(home, "letters")
    assert store.datasets(home) == [dataset]
    assert dataset.folder == home.datasets / "letters" / "v1"
    assert (dataset.task, dataset.labels, dataset.unit) == ("label", ("a", "b"), "patient")
    assert dataset.prompt == PROMPT == store.PROMPTS["label"]
    assert not dataset.synthetic
    assert sum(dataset.counts.values()) == 120
    assert sum(dataset.units.values()) == 40
    assert dataset.facts["dropped"]["empty text"] == dataset.facts["dropped"]["no unit"] == 1
    assert dataset.facts["dropped"]["duplicate"] == 1
    assert dataset.facts["labels"] == {"a": 60, "b": 60}
    assert dataset.facts["records_per_unit"] == {"min": 3, "median": 3, "max": 3}
    records = [record for split in ("train", "val", "test") for record in store.read(dataset, split)]
    first = next(record for record in records if record.id == "0000001")
    assert first.text == 'the "secret" words,\nnumber 0'
    assert (first.unit, first.facts) == ("P0", {"sex": "f", "date": "2025-01-01"})
    page = json.loads((dataset.folder / "dataset.json").read_text())
    assert page["sha256"] == dataset.sha256
    with reading(home) as link:
        (line,) = audit.tail(link, 9)
    assert (line["what"], line["target"], line["sha256"]) == ("data.import", "letters@1", dataset.sha256)


def test_events_tell_each_stage_and_never_a_text(home, letters):
    job = a_job(home)
    run({"path": str(letters), "name": "letters", "columns": COLUMNS}, job)
    stages = [event["stage"] for event in events(job) if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["read", "clean", "split", "publish"]
    assert events(job)[-1]["event"] == "dataset"
    assert "secret" not in (job.folder / "events.jsonl").read_text()
    assert b"secret" not in home.database.read_bytes()


def test_the_same_content_again_is_reused_and_other_settings_are_a_new_version(home, letters):
    spec = {"path": str(letters), "name": "letters", "columns": COLUMNS}
    assert run(spec, a_job(home, "j1"))["version"] == 1
    again = run(spec, a_job(home, "j2"))
    assert (again["version"], again["reused"]) == (1, True)
    other = run({**spec, "seed": 1}, a_job(home, "j3"))
    assert (other["version"], other["reused"]) == (2, False)
    assert store.get(home, "letters").version == 2
    assert store.get(home, "letters", 1).version == store.get(home, "letters@1").version == 1
    assert [path.name for path in sorted((home.datasets / "letters").iterdir())] == ["v1", "v2"]
    assert [path.name for path in home.datasets.iterdir()] == ["letters"]
    with reading(home) as link:
        assert len(audit.tail(link, 9)) == 2


def test_a_job_run_again_returns_what_it_made(home, letters):
    spec = {"path": str(letters), "name": "letters", "columns": COLUMNS}
    first = run(spec, a_job(home))
    letters.unlink()
    assert run(spec, a_job(home)) == {**first, "reused": True}


def test_a_publish_that_fails_half_way_registers_nothing(home, letters):
    spec = {"path": str(letters), "name": "letters", "columns": COLUMNS}
    with transaction(home) as link:
        link.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(Exception, match="full"):
        run(spec, a_job(home))
    assert store.datasets(home) == []
    with pytest.raises(NotFound):
        store.get(home, "letters")
    with transaction(home) as link:
        link.execute("DROP TRIGGER full")
    assert run(spec, a_job(home))["version"] == 1
    assert len(store.read(store.get(home, "letters"), "train")) == store.get(home, "letters").counts["train"]


def test_kill_9_in_the_middle_then_run_again(home):
    code = (
        "import sys; from pathlib import Path; from appliance.core.home import open_home;"
        "from appliance.core.job import Job; from appliance.data.job import run;"
        "home = open_home(Path(sys.argv[1])); folder = home.jobs / 'j1'; folder.mkdir(exist_ok=True);"
        "run({'demo': True}, Job(id='j1', kind='import', folder=folder, home=home))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(home.path)])
    drafts = home.datasets
    deadline = time.monotonic() + 60
    while not any(drafts.iterdir()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert len(store.datasets(home)) <= 1
    result = run({"demo": True}, a_job(home))
    assert result["version"] == 1
    assert [path.name for path in home.datasets.iterdir()] == ["inbox"]
    assert [dataset.title for dataset in store.datasets(home)] == ["inbox@1"]


def test_damaged_files_are_not_read(home, letters):
    run({"path": str(letters), "name": "letters", "columns": COLUMNS}, a_job(home))
    dataset = store.get(home, "letters")
    file = dataset.folder / "train.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"b"', 1))
    with pytest.raises(DataRejected, match="letters@1"):
        store.read(dataset, "train")
    (dataset.folder / "val.jsonl").unlink()
    with pytest.raises(DataRejected):
        store.read(dataset, "val")
    with pytest.raises(ConfigWrong):
        store.read(dataset, "tets")


def test_records_as_units_and_no_unit_at_all(home, letters):
    columns = {"prompt": "message", "answer": "queue"}
    spec = {"path": str(letters), "columns": columns}
    run({**spec, "name": "own", "unit_is_record": True}, a_job(home, "j1"))
    own = store.get(home, "own")
    assert (own.task, own.unit, own.labels, own.prompt) == ("answer", "record", (), "{text}")
    assert own.units == own.counts
    assert sum(own.counts.values()) == 121
    run({**spec, "name": "own"}, a_job(home, "j2"))
    none = store.get(home, "own@2")
    assert (none.unit, set(none.units.values())) == (None, {0})
    assert all(record.unit is None for record in store.read(none, "train"))


def test_rare_labels_and_labels_outside_train_are_said(home, tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"t": f"text {n}", "l": "rare" if n == 0 else f"often {n % 2}"} for n in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    facts = run({"path": str(path), "name": "a", "columns": {"text": "t", "label": "l"}}, a_job(home))[
        "facts"
    ]
    assert facts["rare_labels"] == {"rare": 1}
    assert facts["labels_not_in_train"] in ([], ["rare"])


def test_a_misspelt_label_is_refused_with_a_suggestion_and_one_that_nobody_has_is_said(home, tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"t": f"text {n}", "l": ("billing", "refill", "Urgent")[n % 3]} for n in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)))
    spec = {"path": str(path), "name": "a", "columns": {"text": "t", "label": "l"}}
    for label, meant in (("biling", "billing"), ("urgent", "Urgent")):
        with pytest.raises(DataRejected, match=f"label {label}, but 20 have {meant}") as caught:
            run({**spec, "labels": [label, "refill"]}, a_job(home, f"j-{label}"))
        assert f"Did you mean --labels ...,{meant}?" in caught.value.hint
    job = a_job(home, "j9")
    told = run({**spec, "labels": ["billing", "refill", "transport"]}, job)
    assert told["labels"] == ["billing", "refill", "transport"]
    logged = [
        event["text"] for event in read_events(job.folder / "events.jsonl")[0] if event["event"] == "log"
    ]
    assert logged == ["No record has the label transport."]


def test_demo_import(home):
    started = time.monotonic()
    result = run({"demo": True, "patients": 300}, a_job(home))
    assert time.monotonic() - started < 10
    dataset = store.get(home, "inbox")
    assert dataset.synthetic
    assert dataset.facts["source"] == "generated, synthetic"
    assert (dataset.unit, dataset.labels) == ("patient", inbox.LABELS)
    assert sum(result["units"].values()) == 300


GOOD = {"name": "a", "path": "x.csv", "columns": {"text": "t", "label": "l"}}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../up"},
        {"name": ""},
        {"name": ".."},
        {"name": "a b"},
        {"name": "a" * 65},
        {"name": 7},
        {"demo": True},
        {"path": None},
        {"columns": None},
        {"colour": "red"},
        {"seed": -1},
        {"seed": "1"},
        {"max_characters": 0},
        {"prompt": "no place"},
        {"prompt": "{text} {text}"},
        {"unit_name": "patient"},
        {"unit_is_record": True, "columns": {"text": "t", "label": "l", "unit": "u"}},
    ],
)
def test_wrong_settings_are_refused(change):
    plan_from(GOOD)
    with pytest.raises(ConfigWrong) as caught:
        plan_from({**GOOD, **change})
    assert caught.value.hint


def test_nothing_left_after_cleaning_says_why(home, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,l\n,x\n,y\n")
    with pytest.raises(DataRejected, match="2 empty text"):
        run({"path": str(path), "name": "a", "columns": {"text": "t", "label": "l"}}, a_job(home))


def test_no_room(home, letters, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(NoRoom):
        run({"path": str(letters), "name": "letters", "columns": COLUMNS}, a_job(home))
    assert store.datasets(home) == []
    assert not list(home.datasets.iterdir())


def test_errors_are_of_the_house(home, tmp_path):
    with pytest.raises(ApplianceError):
        run(
            {"path": str(tmp_path / "gone.csv"), "name": "a", "columns": {"text": "t", "label": "l"}},
            a_job(home),
        )


def test_labels_that_are_declared_later_are_a_new_version_of_the_same_records(home, letters):
    spec = {"path": str(letters), "name": "letters", "columns": COLUMNS}
    run(spec, a_job(home))
    told = run({**spec, "labels": ["a", "b"]}, a_job(home, "j2"))
    assert (told["version"], told["reused"]) == (2, False)
    assert store.get(home, "letters").facts["labels_declared"] is True
    assert run({**spec, "labels": ["a", "b"]}, a_job(home, "j3"))["reused"]
