from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import route_support as r

from appliance.core.home import Home
from appliance.serve.counts import Counts
from tui.cli.entry import run


@pytest.fixture
def say(home: Home, capsys: pytest.CaptureFixture[str]) -> Any:
    def said(*words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        """The JSON object and what people read."""
        assert run(["route", *words, "--home", str(home.path), "--json"]) == code
        out, err = capsys.readouterr()
        assert max(map(len, err.splitlines()), default=0) <= 80
        return json.loads(out), err

    return said


def test_a_split_from_start_to_rollback(home: Home, say: Any) -> None:
    r.models(home, "clinic-1b-lora-0005-q4", "clinic-1b-lora-0007-q4")
    names = ("--a", "clinic-1b-lora-0005-q4", "--b", "clinic-1b-lora-0007-q4")
    made, told = say("split", "desk", *names, "--share", "0.25", "--difference", "0.2")
    assert made["share"] == 0.25 and "B (25% of people)" in told and "salt" not in made
    counts = Counts(home)
    for arm, up, down in (("clinic-1b-lora-0005-q4", 60, 60), ("clinic-1b-lora-0007-q4", 100, 20)):
        counts.note("desk", arm, "requests", 300)
        counts.note("desk", arm, "up", up)
        counts.note("desk", arm, "down", down)
        counts.note("desk", arm, "errors", 3)
    counts.flush()
    found, told = say("show", "desk")
    assert found["thumbs"]["verdict"] == "B is better" and "Thumbs up: B is better." in told
    assert found["counts"]["b"]["up"] == 100 and found["rates"]["a"]["thumbs"] == 0.5
    assert "B - A +33.3 points, 95 % interval +" in told
    listed, told = say("list")
    assert [one["name"] for one in listed["routes"]] == ["desk"] and "300" in told
    back, told = say("rollback", "desk")
    assert back["state"] == "rolled back" and "Everything goes to\n  clinic-1b-lora-0005-q4\n" in told
    again, _ = say("set", "desk", "--share", "1")
    assert (again["state"], again["share"]) == ("live", 1.0)
    say("remove", "desk")
    assert say("list")[0]["routes"] == []
    error, _ = say("show", "desk", code=3)
    assert error["error"]["code"] == "not-found"


def test_few_answers_say_so(home: Home, say: Any) -> None:
    r.models(home, "old", "new")
    say("split", "desk", "--a", "old", "--b", "new")
    _, told = say("show", "desk")
    assert "not enough answers yet: 388 more for A, 388 more for B" in told


@pytest.mark.parametrize("by", ["confidence", "prompt"])
def test_a_hybrid_shows_its_table(home: Home, say: Any, by: str) -> None:
    r.site(home)
    made, told = say("hybrid", "desk", "--small", "small", "--large", "large", "--by", by)
    assert made["by"] == by and len(made["table"]) > 3
    assert "threshold" in told and "sent on" in told and told.count("<\n") == 1
    header = next(line for line in told.splitlines() if line.startswith("threshold ("))
    assert header.endswith("in use")
    assert ("differential privacy" in told) == (by == "prompt")
    changed, _ = say("set", "desk", "--threshold", "0.123")
    assert changed["threshold"] == 0.123
    error, _ = say("set", "desk", "--share", "0.5", code=2)
    assert "threshold" in error["error"]["message"]


def test_a_bad_name_and_nothing_to_set_are_told_of_the_route(home: Home, say: Any) -> None:
    r.models(home, "old", "new")
    error, _ = say("split", "bad name", "--a", "old", "--b", "new", code=2)
    assert "cannot name a route" in error["error"]["message"] and "--name" not in error["error"]["hint"]
    say("split", "desk", "--a", "old", "--b", "new")
    error, _ = say("set", "desk", code=2)
    assert error["error"]["hint"] == "Give --share."


@pytest.mark.parametrize(("of", "shown"), [(9, False), (10, True)])
def test_no_difference_is_shown_of_fewer_than_ten_answers(home: Home, say: Any, of: int, shown: bool) -> None:
    r.models(home, "old", "new")
    say("split", "desk", "--a", "old", "--b", "new")
    counts = Counts(home)
    counts.note("desk", "old", "up", 20)
    counts.note("desk", "new", "down", of)
    counts.flush()
    assert ("B - A" in say("show", "desk")[1]) is shown
