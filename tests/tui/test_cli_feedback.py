"""cloister feedback: lists without words, words without tricks, records that import takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from appliance.core.home import Home
from appliance.serve.feedback import Answers, give
from appliance.serve.review import list_feedback
from tui.cli.entry import run

QUESTION, ANSWER = "Where is\x1b]0;owned\x07 the \u202eclinic?", "On the hill."


@pytest.fixture
def ids(home: Home) -> list[str]:
    answers, found = Answers(), []
    for number in range(3):
        messages = [{"role": "user", "content": QUESTION}]
        answers.keep(f"a{number}", "k", model="a-model-of-a-very-long-name", messages=messages, text=ANSWER)
        said: dict[str, Any] = {"thumb": 1, "ratings": {"correct": 5, "complete": 4, "clear": 3}}
        found.append(give(home, answers, "k", {"answer_id": f"a{number}", "correction": "Up there.", **said}))
    return found


def test_the_list_fits_80_columns_and_shows_no_words(
    ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["feedback", "list"]) == 0
    out = capsys.readouterr().out
    assert all(each in out for each in ids) and "3 new" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "clinic" not in out and "hill" not in out
    assert run(["feedback", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["feedback"]
    assert {row["id"] for row in rows} == set(ids) and rows[0]["ratings"]["complete"] == 4
    assert "clinic" not in json.dumps(rows)


def test_words_are_shown_without_what_would_move_the_terminal(
    ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["feedback", "show", ids[0]]) == 0
    out = capsys.readouterr().out
    assert "the \\u202eclinic?" in out and ANSWER in out and "Up there." in out
    assert not any(letter in out for letter in "\x1b\x07\u202e")
    assert run(["feedback", "show", ids[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words"]["messages"][0]["content"] == QUESTION


def test_review_and_export_lead_to_an_import(
    home: Home, ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["feedback", "accept", ids[0], ids[1]]) == 0
    assert run(["feedback", "reject", ids[2]]) == 0
    assert {each.id: each.state for each in list_feedback(home)} == dict(
        zip(ids, ("accepted", "accepted", "rejected"), strict=True)
    )
    capsys.readouterr()
    assert run(["feedback", "export", str(tmp_path / "out.jsonl")]) == 0
    said = capsys.readouterr().out
    words = shlex.split(said.split("Next: ")[1])
    assert words[:3] == ["cloister", "data", "import"] and words[-2:] == ["--unit", "user"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2

    assert run(["feedback", "accept", ids[0], "nowhere", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-found"
    assert run(["feedback", "show", "../../cloister"]) == 3
    assert run(["feedback", "list", "--state", "old"]) == 2


def test_an_empty_site_says_where_feedback_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["feedback", "list"]) == 0
    assert "web page" in capsys.readouterr().out


def test_feedback_becomes_the_next_version_of_its_dataset(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    rows = [
        {
            "msg": f"message number {number}",
            "queue": ("billing", "refill")[number % 2],
            "patient": f"p{number}",
        }
        for number in range(40)
    ]
    (folder / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--text", "msg", "--label", "queue", "--unit", "patient"]
    assert run(["data", "import", str(folder), "--name", "inbox", *columns]) == 0
    answers = Answers()
    answers.keep(
        "a", "k", model="m", messages=[{"role": "user", "content": "pills"}], text="billing", label=True
    )
    given = give(home, answers, "k", {"answer_id": "a", "correction": "refill"})
    assert run(["feedback", "accept", given]) == 0
    assert run(["feedback", "export", str(folder / "said.jsonl"), "--like", "inbox", "--as", "answer"]) == 2
    assert run(["feedback", "export", str(folder / "said.jsonl"), "--like", "inbox"]) == 0
    capsys.readouterr()
    assert run(["data", "import", str(folder), "--name", "inbox", *columns, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == 2
    lines = [
        json.loads(line)
        for file in home.datasets.rglob("v2/*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert [(each["answer"], each["unit"]) for each in lines if each["text"] == "pills"] == [
        ("refill", "user-k")
    ]
    assert len(lines) == 41


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("there.jsonl", "is there already"),
        ("nowhere/out.jsonl", "There is no folder"),
        ("out.csv", "does not end in .jsonl"),
    ],
)
def test_an_export_says_what_is_wrong_with_its_file(
    home: Home, ids: list[str], tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["feedback", "accept", ids[0]]) == 0
    (tmp_path / "there.jsonl").touch()
    assert run(["feedback", "export", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err
