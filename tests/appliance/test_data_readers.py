from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.core.errors import ApplianceError, ConfigWrong, DataRejected, NotFound
from appliance.data.columns import Columns, columns_from
from appliance.data.readers import FIELD_CAP, read_records, record_files
from appliance.data.records import Record, record_from, record_line

LABEL = columns_from({"text": "text", "label": "label"})
FULL = columns_from(
    {"prompt": "q", "answer": "a", "unit": "who", "group": "house", "date": "on", "facts": ["sex"]}
)

# A busy machine is no reason to fail.
calm = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
rows = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def read(path: Path, columns: Columns = LABEL) -> list[Record]:
    return list(read_records(path, columns))


def refused(path: Path, content: bytes, columns: Columns = LABEL) -> ApplianceError:
    path.write_bytes(content)
    with pytest.raises(ApplianceError) as caught:
        read(path, columns)
    assert caught.value.hint
    return caught.value


@calm
@given(rows=rows, bom=st.booleans(), mark=st.sampled_from(",;\t|"), end=st.sampled_from(["\n", "\r\n"]))
def test_csv_round_trip(tmp_path_factory, rows, bom, mark, end):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + out.getvalue().encode())
    assert [(record.text, record.answer) for record in read(path)] == rows


@calm
@given(rows=rows, bom=st.booleans(), ascii_only=st.booleans(), form=st.sampled_from(["jsonl", "json"]))
def test_json_round_trip(tmp_path_factory, rows, bom, ascii_only, form):
    objects = [{"label": label, "text": text, "other": [1, {"a": 2}]} for text, label in rows]
    if form == "json":
        content = json.dumps(objects, ensure_ascii=ascii_only, indent=2)
    else:
        content = "\n".join(json.dumps(one, ensure_ascii=ascii_only) for one in objects)
    path = tmp_path_factory.mktemp("json") / f"a.{form}"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + content.encode())
    assert [(record.text, record.answer) for record in read(path)] == rows


@calm
@given(texts=st.tuples(words, words, words), facts=st.dictionaries(words, words, max_size=3))
def test_record_line_round_trip(texts, facts):
    record = Record(id=texts[0], text=texts[1], answer=texts[2], unit=None, group="g", facts=facts)
    line = record_line(record)
    assert "\n" not in line
    assert record_from(line) == record


def test_every_column_arrives_and_numbers_become_text(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"q": "hi", "a": 3, "who": 17, "house": None, "on": "2025-01-02", "sex": "f", "x": "unused"}
    path.write_text(json.dumps(row))
    assert read(path, FULL) == [
        Record(
            id="0000001",
            text="hi",
            answer="3",
            unit="17",
            group=None,
            source="a.jsonl:1",
            facts={"sex": "f", "date": "2025-01-02"},
        )
    ]


def test_large_json_array_is_read_across_chunks(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": f"{n} " + "é" * 500, "label": "x"} for n in range(1000)]))
    assert [record.text.split()[0] for record in read(path)] == [str(n) for n in range(1000)]


def test_folder_reads_known_formats_in_order_and_counts_the_others(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.csv").write_text("text,label\none,x\n")
    (tmp_path / "sub" / "c.tsv").write_text("label\ttext\ny\ttwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "zero", "label": "z"}\n\n')
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / ".hidden.csv").write_text("nothing")
    assert [(r.id, r.text, r.source) for r in read(tmp_path)] == [
        ("0000001", "zero", "a.jsonl:1"),
        ("0000002", "one", "b.csv:2"),
        ("0000003", "two", "sub/c.tsv:2"),
    ]
    assert record_files(tmp_path)[1] == 1


def test_missing_column_names_what_is_there_and_the_closest(tmp_path):
    for name, content in (
        ("a.csv", b"Message,Label\nhi,x\n"),
        ("a.jsonl", b'{"Message": "hi", "Label": "x"}'),
    ):
        problem = refused(tmp_path / name, content, columns_from({"text": "message", "label": "Label"}))
        assert isinstance(problem, DataRejected)
        assert "no column message" in problem.message
        assert "Message, Label" in problem.message
        assert "Did you mean Message?" in problem.hint


def test_a_file_without_a_header_does_not_show_its_first_record(tmp_path):
    problem = refused(tmp_path / "a.csv", b"Ada Lovelace has a rash on her arm,symptoms\nhi,x\n")
    assert "Lovelace" not in problem.message + problem.hint


SECRET = "Lovelace"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b" \n\n", "empty"),
        ("a.csv", b"\xef\xbb\xbf", "empty"),
        ("a.csv", b"text,label\n", "no records"),
        ("a.json", b"[]", "no records"),
        ("a.csv", "text,label\nLovelace café,x\n".encode("latin-1"), "line 2: not UTF-8"),
        ("a.json", '[{"text": "Lovelace café"}]'.encode("latin-1"), "not UTF-8"),
        ("a.csv", "text,label\nLovelace,x\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"text,label\nLovelace\x00,x\n", "binary"),
        ("a.csv", b"text,label\nhi,x\nLovelace,x,y\n", "line 3: 3 fields where the header has 2"),
        ("a.csv", b'text,label\nhi,x\n"Lovelace,x\n', "never ends"),
        ("a.csv", b"text,label,text\nLovelace,x,y\n", "column text twice"),
        ("a.csv", b"text,label\n" + b"Lovelace" * (FIELD_CAP // 4) + b",x\n", "longer than"),
        ("a.jsonl", b'{"text": "hi", "label": "x"}\n{"text": "Lovelace\n', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "hi", "label": "x"}\n["Lovelace"]\n', "line 2: JSON, but not an object"),
        ("a.jsonl", b'{"text": ["Lovelace"], "label": "x"}\n', "line 1: column text holds a list"),
        ("a.jsonl", b'{"text": "Lovelace \\ud800", "label": "x"}\n', "half a character"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.json", b'{"text": "Lovelace", "label": "x"}', "not one JSON array"),
        ("a.json", b'[\n{"text": "hi", "label": "x"},\n{"text": "Lovelace"', "line 3: not JSON"),
        ("a.json", b'[{"text": "hi", "label": "x"}, "Lovelace"]', "not one JSON array"),
        ("a.xlsx", b"PK\x03\x04Lovelace", "not of a format"),
    ],
)
def test_bad_files_say_what_is_wrong_and_never_the_text(tmp_path, name, content, says):
    problem = refused(tmp_path / name, content)
    assert isinstance(problem, DataRejected)
    assert says in problem.message
    assert SECRET not in problem.message + problem.hint


def test_no_such_path_and_a_folder_of_nothing(tmp_path):
    with pytest.raises(NotFound, match="no file or folder"):
        read(tmp_path / "gone.csv")
    with pytest.raises(DataRejected, match="holds no file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"label": "l"},
        {"prompt": "p", "chosen": "c"},
        {"prompt": "p", "answer": "a", "rejected": "r"},
        {"prompt": "p", "chosen": "c", "rejected": "c"},
        {"chat": "c", "text": "t"},
        {"chat": "c", "answer": "a"},
        {"text": "t", "label": "l", "prompt": "p", "answer": "a"},
        {"text": "t", "answer": "a"},
        {"text": "t", "label": "t"},
        {"text": "t", "label": "l", "unit": "l"},
        {"prompt": "p", "answer": "a", "unit": "p"},
        {"chat": "c", "unit": "c"},
        {"text": "t", "label": "l", "patient": "p"},
        {"text": "t", "label": 3},
        {"text": "t", "label": "l", "facts": "date"},
    ],
)
def test_columns_that_make_no_sense_are_refused(value):
    with pytest.raises(ConfigWrong):
        columns_from(value)


@pytest.mark.parametrize("first", ["Zoltan Quux,rash", "P12,Ada,a", "text1,x", "Ada"])
def test_no_word_of_a_first_record_is_taken_for_a_column(tmp_path, first):
    problem = refused(tmp_path / "a.csv", f"{first}\nhi,x\n".encode(), columns_from({"text": "message"}))
    said = problem.message + problem.hint
    assert "none of the columns message" in said and "header" in said
    assert not any(
        word in said.replace("a.csv", "") for word in first.replace(",", " ").split() if len(word) > 1
    )
