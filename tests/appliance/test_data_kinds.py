"""Conversations, running text and preferences: from a file to a published dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.clean import clean, folded
from appliance.data.columns import columns_from
from appliance.data.job import plan_from, run
from appliance.data.readers import FIELD_CAP, read_records
from appliance.data.records import Record, chat_text, record_from, record_line, spoken
from appliance.data.split import SPLITS
from tui.cli.entry import run as cli

SECRET = "Lovelace"
COLUMNS = {
    "label": {"text": "text", "label": "label"},
    "answer": {"prompt": "text", "answer": "answer"},
    "chat": {"chat": "messages"},
    "text": {"text": "text"},
    "preference": {"prompt": "text", "chosen": "good", "rejected": "bad"},
}


def talk(*turns: str, system: str = "") -> list[dict[str, str]]:
    """A conversation that the user begins."""
    before = [{"role": "system", "content": system}] if system else []
    return before + [
        {"role": ("user", "assistant")[place % 2], "content": said} for place, said in enumerate(turns)
    ]


def a_row(number: int, said: str | None = None) -> dict[str, Any]:
    """A record with the columns of every task."""
    said = said or f'note "{number}",\nof today é'
    return {
        "text": said,
        "label": "ab"[number % 2],
        "answer": f"answer {number}",
        "good": f"good {number}",
        "bad": f"bad {number}",
        "messages": talk(f"first {number}", "yes?", said, f"answer {number}", "thanks", system="Be brief."),
        "patient": f"P{number % 40}",
    }


def written(folder: Path, form: str, rows: Iterable[dict[str, Any]]) -> Path:
    """The rows as a file; CSV holds the messages as JSON text."""
    path = folder / f"records.{form}"
    rows = list(rows)
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            flat = (
                {key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows
            )
            writer.writerows(flat)
    return path


def imported(home: Home, path: Path, kind: str, name: str = "d", **more: Any) -> store.Dataset:
    job = Job(id=f"{name}-{path.suffix}", kind="import", folder=home.jobs / f"{name}{path.suffix}", home=home)
    job.folder.mkdir()
    columns = {**COLUMNS[kind], "unit": "patient"}
    result = run({"path": str(path), "name": name, "columns": columns, **more}, job)
    said = (job.folder / "events.jsonl").read_text()
    assert SECRET not in said and "of today" not in said
    return store.get(home, result["name"], result["version"])


def records(dataset: store.Dataset) -> list[Record]:
    found = [record for split in SPLITS for record in store.read(dataset, split)]
    return sorted(found, key=lambda record: record.id)


EXPECTED = {
    "chat": (chat_text(a_row(3)["messages"][:4]), "answer 3", ""),
    "text": (a_row(3)["text"], "", ""),
    "preference": (a_row(3)["text"], "good 3", "bad 3"),
}


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_each_kind_arrives_from_each_format(home, tmp_path, kind, form):
    dataset = imported(home, written(tmp_path, form, map(a_row, range(120))), kind)
    assert (dataset.task, dataset.labels, dataset.unit) == (kind, (), "patient")
    assert dataset.prompt == ("{text}" if kind == "preference" else "")
    assert (sum(dataset.counts.values()), sum(dataset.units.values())) == (120, 40)
    fourth = records(dataset)[3]
    assert (fourth.text, fourth.answer, fourth.rejected) == EXPECTED[kind]
    assert fourth.unit == "P3"
    assert dataset.facts["words"]["p100"] == {"chat": 10, "text": 5, "preference": 5}[kind]


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_command_line_imports_it(home, tmp_path, kind, capsys):
    path = written(tmp_path, "jsonl", map(a_row, range(60)))
    named = [word for option, column in COLUMNS[kind].items() for word in (f"--{option}", column)]
    words = ["data", "import", str(path), "--name", "d", *named, "--unit", "patient", "--json"]
    assert cli([*words, "--home", str(home.path)]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == kind
    assert [(d.title, d.task) for d in store.datasets(home)] == [("d@1", kind)]
    assert sum(store.get(home, "d").counts.values()) == 60


@pytest.mark.parametrize("kind", COLUMNS)
def test_units_that_are_empty_are_dropped_and_duplicates_go_only_within_a_unit(home, tmp_path, kind):
    rows = [a_row(number) for number in range(60)]
    nobody = [{**a_row(200), "patient": None}, {**a_row(201), "patient": " "}]
    shouted = {key: value.upper() if key == "text" else value for key, value in a_row(7).items()}
    shouted["messages"] = [{**m, "content": m["content"].upper() + "\n"} for m in a_row(7)["messages"]]
    if kind == "label":
        shouted["label"] = a_row(7)["label"]
    stranger = {**a_row(7), "patient": "P8"}
    dataset = imported(home, written(tmp_path, "jsonl", [*rows, *nobody, shouted, stranger]), kind)
    dropped = dataset.facts["dropped"]
    assert (dropped["no unit"], dropped["duplicate"]) == (2, 1)
    assert sum(dropped.values()) == 3
    assert [r.unit for r in records(dataset) if folded(r.text) == folded(records(dataset)[7].text)] == [
        "P7",
        "P8",
    ]


@pytest.mark.parametrize("kind", COLUMNS)
def test_records_as_their_own_units_are_split_by_their_text(home, tmp_path, kind):
    path = written(tmp_path, "jsonl", [a_row(number) for number in range(90)])
    spec = {"path": str(path), "name": "d", "columns": COLUMNS[kind], "unit_is_record": True}
    job = Job(id="j", kind="import", folder=home.jobs, home=home)
    result = run(spec, job)
    assert result["units"] == result["counts"]
    assert sum(result["counts"].values()) == 90 and 55 < result["counts"]["train"] < 88


GOOD = talk("hello", "hi", "and now", "this")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "empty text"),
        ("  ", "empty text"),
        ([], "no answer"),
        (talk("hello"), "no answer"),
        (talk("hello", system="Be brief."), "no answer"),
        ([{"role": "assistant", "content": "hi"}, *GOOD], "turns out of order"),
        ([GOOD[0], *GOOD], "turns out of order"),
        ([*GOOD[:2], {"role": "system", "content": "x"}, *GOOD[2:]], "turns out of order"),
        (
            [{"role": "system", "content": "x"}, {"role": "system", "content": "y"}, *GOOD],
            "turns out of order",
        ),
        ([{"role": "system", "content": "x"}, GOOD[1]], "turns out of order"),
        ([{"role": "human", "content": "x"}, *GOOD[1:]], "turns out of order"),
        ([*GOOD[:2], {"role": "tool", "content": "x"}, GOOD[3]], "turns out of order"),
        (talk("hello", " \n"), "empty turn"),
        (talk("hello", "hi", "", "this"), "empty turn"),
        ([GOOD[0], {"role": "assistant", "content": None}], "empty turn"),
    ],
)
def test_conversations_that_are_none_are_counted_by_reason(tmp_path, messages, reason):
    path = written(tmp_path, "jsonl", [{"messages": messages}, {"messages": GOOD}])
    read = read_records(path, columns_from({"chat": "messages"}))
    cleaned = clean(read, task="chat", has_unit=False, max_characters=1000)
    assert {why: count for why, count in cleaned.dropped.items() if count} == {reason: 1}
    assert [(json.loads(r.text), r.answer) for r in cleaned.kept] == [(GOOD[:3], "this")]


def test_what_follows_the_last_answer_is_dropped_and_other_keys_are_left_out(tmp_path):
    extra = [{**message, "name": SECRET} for message in [*GOOD, {"role": "tool", "content": "x"}, *GOOD[:1]]]
    path = written(tmp_path, "jsonl", [{"messages": extra}])
    read = read_records(path, columns_from({"chat": "messages"}))
    (kept,) = clean(read, task="chat", has_unit=False, max_characters=1000).kept
    assert (kept.text, kept.answer) == (
        '[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"},'
        '{"role":"user","content":"and now"}]',
        "this",
    )


@pytest.mark.parametrize(
    ("form", "cell", "says"),
    [
        ("csv", f"{SECRET} said hello", "holds no JSON list"),
        ("csv", "[" * 100_000, "holds no JSON list"),
        ("csv", f'"{SECRET}"', "is not a list of messages"),
        ("csv", '{"role": "user", "content": "Lovelace"}', "is not a list of messages"),
        ("csv", '[{"role": "user", "content": "Lovelace \\ud800"}]', "half a character"),
        ("jsonl", [SECRET], "is not a list of messages"),
        ("jsonl", [{"role": "user"}], "is not a list of messages"),
        ("jsonl", [{"from": "human", "value": SECRET}], "is not a list of messages"),
        ("jsonl", [{"role": 1, "content": SECRET}], "is not a list of messages"),
        ("jsonl", [{"role": "user", "content": [{"type": "text", "text": SECRET}]}], "is not a list of"),
        ("jsonl", talk(SECRET * (FIELD_CAP // 8 + 1), "no"), "is longer than"),
    ],
)
def test_a_column_that_holds_no_messages_refuses_the_file_and_shows_nothing(tmp_path, form, cell, says):
    path = written(tmp_path, form, [{"messages": GOOD, "n": 1}, {"messages": cell, "n": 2}])
    with pytest.raises(DataRejected) as caught:
        list(read_records(path, columns_from({"chat": "messages"})))
    assert says in caught.value.message
    assert f"records.{form}, line {3 if form == 'csv' else 2}" in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint


def test_foreign_role_names_say_what_a_chat_is(home, tmp_path):
    rows = [{"patient": "P", "messages": [{"role": "human", "content": SECRET}, GOOD[1]]}] * 4
    with pytest.raises(DataRejected, match="4 turns out of order") as caught:
        imported(home, written(tmp_path, "jsonl", rows), "chat")
    assert "user and assistant in turn" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bad": ""}, "empty rejected answer"),
        ({"bad": None}, "empty rejected answer"),
        ({"bad": " good 500 "}, "both answers the same"),
        ({"good": "\n"}, "empty answer"),
        ({"text": " "}, "empty text"),
        ({"bad": "long " * 1601}, "too long"),
    ],
)
def test_preferences_that_say_nothing_are_dropped_with_their_reason(home, tmp_path, change, reason):
    rows = [*map(a_row, range(60)), {**a_row(500), **change}]
    dataset = imported(home, written(tmp_path, "jsonl", rows), "preference")
    assert {why: count for why, count in dataset.facts["dropped"].items() if count} == {reason: 1}
    assert all(record.rejected for record in records(dataset))


def test_another_rejected_answer_is_no_duplicate(home, tmp_path):
    rows = [*map(a_row, range(60)), {**a_row(5), "bad": "worse"}]
    dataset = imported(home, written(tmp_path, "jsonl", rows), "preference")
    assert dataset.facts["dropped"]["duplicate"] == 0 and sum(dataset.counts.values()) == 61


def test_running_text_that_is_empty_is_dropped_and_long_text_is_kept(home, tmp_path):
    rows = [*map(a_row, range(60)), {**a_row(300), "text": "\t"}, {**a_row(301), "text": "long " * 10_000}]
    dataset = imported(home, written(tmp_path, "jsonl", rows), "text")
    assert dataset.facts["dropped"] == {"empty text": 1, "no unit": 0, "too long": 0, "duplicate": 0}
    assert max(len(record.text) for record in records(dataset)) == 50_000


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_the_same_words_under_another_name_are_noticed_whatever_their_task(home, tmp_path, kind):
    rows = [{**a_row(n), "messages": talk(a_row(n)["text"], "answer")} for n in range(60)]
    path = written(tmp_path, "jsonl", rows)
    imported(home, path, "answer", name="questions")
    dataset = imported(home, path, kind, name="other")
    assert dataset.facts["overlap"] == {"questions@1": 60}


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_a_prompt_form_has_no_place_where_nothing_is_asked(kind):
    spec = {"path": "x.csv", "name": "d", "columns": COLUMNS[kind]}
    assert plan_from(spec).prompt == ""
    with pytest.raises(ConfigWrong, match="no prompt form"):
        plan_from({**spec, "prompt": "Say: {text}"})
    with pytest.raises(ConfigWrong):
        plan_from({**spec, "labels": ["a", "b"]})


def test_a_preference_has_a_prompt_form():
    spec = {"path": "x.csv", "name": "d", "columns": COLUMNS["preference"]}
    assert plan_from({**spec, "prompt": "Say: {text}"}).prompt == "Say: {text}"
    with pytest.raises(ConfigWrong):
        plan_from({**spec, "prompt": "nothing"})


OLD = (
    '{"id":"0000001","text":"text \\"é\\"","answer":"a","unit":"P1","group":null,'
    '"source":"a.csv:2","facts":{"sex":"f"}}'
)


def test_lines_of_older_datasets_are_read_and_written_as_they_were():
    record = record_from(OLD)
    assert record.rejected == ""
    assert record_line(record) == OLD
    pair = Record(id="1", text="t", answer="a", rejected="b")
    assert '"answer":"a","rejected":"b"' in record_line(pair) and record_from(record_line(pair)) == pair


def test_older_tasks_give_the_dataset_that_they_always_gave(home, tmp_path):
    path = tmp_path / "a.csv"
    rows = (f"P{n % 40},text {n},{'ab'[n % 2]}\n" for n in range(120))
    path.write_text("who,text,label\n" + "".join(rows))
    found = []
    for columns in ({"text": "text", "label": "label"}, {"prompt": "text", "answer": "label"}):
        job = Job(id="j" + str(len(found)), kind="import", folder=home.jobs, home=home)
        spec = {"path": str(path), "name": "d", "columns": {**columns, "unit": "who"}}
        found.append(run(spec, job)["sha256"])
    assert found == [  # what the first version of this file format gave
        "9e17781b94173796ec25c2d3b02b25daac0c949370cd141eadbb56c34e683ea5",
        "2475708d8d6ca4c56af58a16a62dffd6f4f96f76f4361bde843e9ee6659caa83",
    ]


def test_text_that_only_looks_like_a_conversation_is_left_as_it_is():
    for text in ('[{"role":"user"', '[{"role":"user"}]', '[{"role":"user","content":3}]', "[]", "plain"):
        assert spoken(text) == text
    assert spoken(chat_text(GOOD)) == "hello\nhi\nand now\nthis"
