"""The same people's records under a second name must not quietly get a second privacy budget."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from appliance.core.errors import DataRejected
from appliance.core.events import read_events
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.job import run

COLUMNS = {"text": "message", "label": "queue", "unit": "patient"}
Rows = list[tuple[str, str, str]]


def rows(first: int, last: int, patient: str = "P") -> Rows:
    return [(f"{patient}{n % 40}", f"please call back, case {n}", "ab"[n % 2]) for n in range(first, last)]


def bring(home: Home, name: str, lines: Rows, **more: Any) -> tuple[dict[str, Any], str]:
    """Import `lines` as `name`; the result and the log lines."""
    path = home.path / "in.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("patient", "message", "queue"), *lines])
    job = Job(id=f"job-{name}-{len(lines)}", kind="import", folder=home.jobs / name, home=home)
    job.folder.mkdir(exist_ok=True)
    result = run({"path": str(path), "name": name, "columns": COLUMNS, **more}, job)
    events, _ = read_events(job.folder / "events.jsonl")
    return result, " ".join(event["text"] for event in events if event["event"] == "log")


def by_record() -> dict[str, Any]:
    return {"columns": {"text": "message", "label": "queue"}, "unit_is_record": True}


def spaced(lines: Rows) -> Rows:
    return [(unit, f" {text.upper()} ", label) for unit, text, label in reversed(lines)]


@pytest.mark.parametrize("more", [{}, {"seed": 7}, {"prompt": "Read: {text}"}, by_record()])
@pytest.mark.parametrize("changed", [list, spaced])
def test_the_same_records_under_another_name_are_refused(home: Home, more: Any, changed: Any) -> None:
    bring(home, "inbox", rows(0, 200))
    with pytest.raises(DataRejected, match="already there as inbox@1") as caught:
        bring(home, "again", changed(rows(0, 200)), **more)
    assert "privacy budget" in caught.value.hint and "--name inbox" in caught.value.hint
    assert [dataset.title for dataset in store.datasets(home)] == ["inbox@1"]
    assert not [path for path in home.datasets.iterdir() if path.name != "inbox"]


def test_under_their_own_name_they_are_the_same_dataset_or_a_new_version(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    assert bring(home, "inbox", rows(0, 200), seed=7)[0]["version"] == 1  # the same job again
    result, log = bring(home, "inbox", rows(0, 250))
    assert (result["version"], result["overlap"], log) == (2, {}, "")


def test_a_part_of_them_is_counted_and_said(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    bring(home, "inbox", rows(0, 260))
    result, log = bring(home, "more", rows(100, 400))
    assert result["overlap"] == {"inbox@2": 160} == result["facts"]["overlap"]
    assert "160 of 300 records (53%) are in inbox@2 too" in log
    inside, _ = bring(home, "part", rows(0, 100))
    assert inside["overlap"] == {"inbox@2": 100} or inside["overlap"] == {"inbox@1": 100}


def test_other_answers_to_the_same_texts_are_counted_not_refused(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    turned = [(unit, text, "ba"[label == "b"]) for unit, text, label in rows(0, 200)]
    turned[0] = (*turned[0][:2], "b" if turned[0][2] == "a" else "a")
    assert bring(home, "turned", turned)[0]["overlap"] == {"inbox@1": 200}


def test_other_people_with_the_same_words_are_others(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    assert bring(home, "elsewhere", rows(0, 200, "Q"))[0]["overlap"] == {}


def test_one_percent_is_not_worth_saying(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    assert bring(home, "more", rows(198, 398))[0]["overlap"] == {}
    assert bring(home, "most", rows(197, 397))[0]["overlap"]["inbox@1"] == 3


def test_a_dataset_whose_files_are_gone_is_said_not_to_be_compared(home: Home) -> None:
    bring(home, "inbox", rows(0, 200))
    (home.datasets / "inbox" / "v1" / "val.jsonl").unlink()
    result, log = bring(home, "again", rows(0, 200))
    assert result["overlap"] == {} and "inbox@1 could not be compared" in log


def test_made_up_records_may_be_there_twice(home: Home) -> None:
    for name in ("inbox", "demo-inbox"):
        job = Job(id=name, kind="import", folder=home.jobs / name, home=home)
        job.folder.mkdir()
        assert run({"demo": True, "patients": 60, "name": name}, job)["overlap"] == {}
