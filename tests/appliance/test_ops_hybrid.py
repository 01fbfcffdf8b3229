from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import route_support as r

from appliance.core.errors import ConfigWrong, DataRejected, NotFound
from appliance.core.home import Home
from appliance.data.records import chat_text
from appliance.ops import hybrid
from appliance.ops.hybrid import make_hybrid, pairs_of, signal_of, table_of
from appliance.privacy import uncharged
from appliance.serve import route_changes
from appliance.serve.routes import Routes, load


def test_by_confidence_for_label_models_with_the_table_of_thresholds(home: Home) -> None:
    found = r.site(home)
    route = make_hybrid(home, "desk", small="small", large="large", who="mira")
    facts = route.facts
    assert (facts["by"], route.router) == ("confidence", None)
    first, last = facts["table"][0], facts["table"][-1]
    assert (first["share"], last["share"]) == (0.0, 1.0)
    # The ends are the two models alone; asking the small one first costs its time on top.
    pairs = pairs_of(home, "small", "large")
    assert first["quality"] == pytest.approx(float(pairs.small.mean()))
    assert last["quality"] == pytest.approx(float(pairs.large.mean()))
    assert (first["seconds"], last["seconds"]) == pytest.approx((0.01, 0.11))
    chosen = next(row for row in facts["table"] if row["threshold"] == facts["threshold"])
    assert chosen["share"] == pytest.approx(0.5, abs=0.06)  # the hard half
    assert chosen["quality"] > max(first["quality"], last["quality"]) - 0.005
    assert chosen["seconds"] < last["seconds"] * 0.6
    assert route.after(0.5) is not None and route.after(0.95) is None
    assert facts["learnt"]["records"] == len(found) and facts["learnt"]["jobs"] == ["0002", "0003"]


def test_both_models_are_joined_by_record_whatever_the_order(home: Home) -> None:
    found = r.site(home)  # the large model's rows are in the other order
    pairs = pairs_of(home, "small", "large")
    assert pairs.texts == tuple(record.text for record in found)
    assert pairs.large.tolist() == [float(r.chance(record, "l") < 0.93) for record in found]
    assert pairs.worse.tolist() == [
        large > small for small, large in zip(pairs.small, pairs.large, strict=True)
    ]


@pytest.mark.parametrize("task", ["label", "answer", "chat"])
def test_by_prompt_learns_which_questions_are_hard(home: Home, task: str) -> None:
    found = r.records()
    if task == "chat":
        turns = [{"role": "user", "content": "say all"}, {"role": "assistant", "content": "No."}]
        found = [
            replace(one, text=chat_text([*turns, {"role": "user", "content": one.text}])) for one in found
        ]
    r.site(home, task, found)
    route = make_hybrid(
        home, "desk", small="small", large="large", by=None if task != "label" else "prompt", who="mira"
    )
    assert route.facts["by"] == "prompt" and route.router is not None
    easy, difficult = route.pick("k", "where do I park today 3"), route.pick("k", "explain the interaction 4")
    assert (easy.model, difficult.model) == ("small", "large")
    assert easy.reason.startswith("easy: 0.") and difficult.reason.startswith("hard: 0.")
    assert route.after(0.01) is None
    assert route.facts["table"][0]["seconds"] == pytest.approx(0.01)  # nothing is asked twice
    assert uncharged.jobs_of(home, "desk", uncharged.OPEN) == ["route desk"]


def test_the_table_is_measured_on_records_and_units_the_router_has_not_seen(home: Home) -> None:
    """Where the text says nothing of who is right, the cross-validated table must show no gain."""
    found = [replace(one, text=f"note {one.unit} {one.unit} zq{one.unit}") for one in r.records()]
    r.site(home, "label", found)
    pairs = pairs_of(home, "small", "large")
    # Both records of a unit have one text: seen in training, it would give the answer away.
    same = replace(pairs, small=np.repeat(np.arange(100) % 2, 2).astype(float), large=np.ones(200))
    odds = signal_of(same, "prompt")
    found_worse = same.worse
    ranks = odds[found_worse][:, None] > odds[~found_worse][None, :]
    assert 0.3 < ranks.mean() < 0.7  # no better than a coin (AUC)
    rows = table_of(same, odds, "prompt")
    for row in rows:
        assert row["quality"] == pytest.approx(0.5 + row["share"] / 2, abs=0.09)


def test_no_text_of_records_is_in_the_database_or_the_router_file(home: Home) -> None:
    r.site(home)
    route = make_hybrid(home, "desk", small="small", large="large", by="prompt", who="mira")
    assert "desk" in r.whole_database(home) and r.SECRET not in r.whole_database(home)
    content = (home.routes / route.facts["router"]["file"]).read_bytes()
    assert r.SECRET.encode() not in content and b"park" not in content


def test_a_damaged_router_file_sends_all_to_the_small_model(home: Home) -> None:
    r.site(home)
    route = make_hybrid(home, "desk", small="small", large="large", by="prompt", who="mira")
    path = home.routes / route.facts["router"]["file"]
    path.write_bytes(path.read_bytes() + b"x")
    with closing(Routes(home)) as live:
        broken = live.get("desk")
        assert broken is not None
        choice = broken.pick("k", "explain the interaction of my tablets")
    assert choice.model == "small" and "not the one that was learnt" in choice.reason
    route_changes.remove(home, "desk", who="mira")
    assert load(home) == {} and not path.exists()


def test_a_given_threshold_is_taken(home: Home) -> None:
    r.site(home)
    route = make_hybrid(home, "desk", small="small", large="large", threshold=0.97, who="mira")
    assert route.facts["threshold"] == 0.97 and route.after(0.96) is not None
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigWrong):
            make_hybrid(home, "x", small="small", large="large", threshold=wrong, who="mira")
    with pytest.raises(ConfigWrong):
        make_hybrid(home, "x", small="small", large="large", by="mood", who="mira")


def test_confidence_with_a_threshold_needs_no_evaluation_all_else_does(home: Home) -> None:
    r.models(home, "small", "large")
    asked = {"small": "small", "large": "large", "who": "mira"}
    route = make_hybrid(home, "desk", threshold=0.8, by="confidence", **asked)
    assert route.facts["table"] == [] and route.after(0.7) is not None
    for rest in ({}, {"by": "confidence"}, {"by": "prompt", "threshold": 0.5}):
        with pytest.raises(NotFound, match="were not evaluated on the same dataset"):
            make_hybrid(home, "other", **asked, **rest)


def test_an_evaluation_of_another_file_of_that_name_does_not_count(home: Home) -> None:
    r.site(home)
    path = home.reports / "0002-rows.json"
    path.write_text(path.read_text().replace(hybrid.registry.get(home, "small").sha256, "0" * 64))
    with pytest.raises(NotFound):
        pairs_of(home, "small", "large")
    path.write_text("{ broken")
    with pytest.raises(NotFound):
        pairs_of(home, "small", "large")


def test_too_little_to_learn_from_is_refused(home: Home) -> None:
    r.site(home, "label", r.records(30))
    with pytest.raises(DataRejected, match="30 evaluated records in common; 40 are needed"):
        make_hybrid(home, "desk", small="small", large="large", who="mira")


def test_models_that_never_differ_give_nothing_to_learn(home: Home) -> None:
    r.site(home)
    pairs = pairs_of(home, "small", "large")
    with pytest.raises(DataRejected, match="better on 0 of 200"):
        signal_of(replace(pairs, large=pairs.small), "prompt")
    with pytest.raises(ConfigWrong, match="no confidence"):
        signal_of(replace(pairs, confidence=None), "confidence")
