"""What a search may try, and what optuna makes of the past."""

from __future__ import annotations

import math

import pytest

from appliance.core.errors import ConfigWrong
from appliance.train.settings import Settings
from appliance.train.space import Choice, Range, count, holds, largest, read_space, spread, start
from appliance.train.trials import Trial, best_of, importance, suggest


def test_a_space_is_read_as_it_is_written() -> None:
    text = "learning_rate=0.05..0.4, rank=2|4|8, warmup_steps=0..9, schedule=linear|cosine, rslora=yes|no"
    space = read_space(text, Settings(), charged=True)
    assert space == {
        "learning_rate": Range(low=0.05, high=0.4, whole=False),
        "rank": Choice(values=(2, 4, 8)),
        "warmup_steps": Range(low=0, high=9, whole=True),
        "schedule": Choice(values=("linear", "cosine")),
        "rslora": Choice(values=(True, False)),
    }
    assert spread(space)["learning_rate"] == "0.05..0.4" and spread(space)["rank"] == "2|4|8"
    assert largest(space, Settings()).rank == 8


def test_without_a_space_the_learning_rate_is_searched_around_the_usual_one() -> None:
    for settings in (
        Settings(),
        Settings(private=False),
        Settings(method="full"),
        Settings(learning_rate=0.3),
    ):
        space = read_space("", settings, charged=settings.private)
        first = start(settings, space)
        assert list(space) == ["learning_rate"] and first is not None
        assert space["learning_rate"].low * 16 == pytest.approx(space["learning_rate"].high)
        assert math.sqrt(space["learning_rate"].low * space["learning_rate"].high) == pytest.approx(
            first["learning_rate"]
        )


def test_the_settings_as_they_are_come_first_only_where_the_space_holds_them() -> None:
    settings = Settings(learning_rate=0.1, rank=4)
    assert start(settings, read_space("rank=2|4,learning_rate=0.05..0.2", settings, charged=True)) == {
        "rank": 4,
        "learning_rate": 0.1,
    }
    assert start(settings, read_space("rank=8|16", settings, charged=True)) is None
    assert start(settings, read_space("weight_decay=0..0.3", settings, charged=True)) is None, (
        "None: by method"
    )


@pytest.mark.parametrize("name", ["epsilon", "delta", "steps", "sample_rate", "records_per_unit", "sampling"])
def test_what_changes_the_price_of_a_step_cannot_be_searched_where_steps_are_paid(name: str) -> None:
    with pytest.raises(ConfigWrong, match=f"{name} cannot be searched"):
        read_space(f"{name}=1..2", Settings(), charged=True)


@pytest.mark.parametrize("name", ["beta", "temperature", "distill_weight", "objective", "max_tokens"])
def test_what_changes_the_loss_cannot_be_searched_for_the_lowest_loss(name: str) -> None:
    for charged in (True, False):
        with pytest.raises(ConfigWrong, match=f"{name} cannot be searched"):
            read_space(f"{name}=1..2", Settings(), charged=charged)


def test_public_and_open_searches_may_also_try_how_long_and_how_much() -> None:
    assert "sample_rate" in read_space("sample_rate=0.1..0.5,steps=20..60", Settings(), charged=False)
    assert "batch" in read_space("batch=8|16,epochs=1..4", Settings(private=False), charged=False)


@pytest.mark.parametrize(
    "text",
    [
        *("rank", "rank=", "=4", "rank=4,rank=8", "rank=4|4", "rank=8..2", "rank=2..2", "rank=0..4"),
        *("learning_rate=0|0.1", "learning_rate=0..0.4", "learning_rate=0.1..0.10000001", "=2", "rank=2"),
        *("rank=1..99999999999", "max_grad_norm=1e-300..1e300"),
        *("rank=two", "rank=1.5", "learning_rate=nan..1", "learning_rate=0..inf", "schedule=a..b"),
        *("schedule=steep", "weight_decay=0..2", "dropout=-1..0.5", "rslora=maybe", ",", "rank=2|4,,"),
    ],
)
def test_a_space_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigWrong) as problem:
        read_space(text, Settings(), charged=True)
    assert problem.value.hint


SPACE = read_space("learning_rate=0.01..1,alpha=1..64", Settings(), charged=True)


def past(count: int) -> list[Trial]:
    """Trials as optuna proposes them, of a loss that knows only the learning rate (lowest at 0.1)."""
    trials: list[Trial] = []
    for number in range(1, count + 1):
        tried = suggest(SPACE, trials, first={"learning_rate": 0.5, "alpha": 8}, seed=3)
        loss = abs(math.log10(tried["learning_rate"]) + 1)
        trials.append(Trial(number=number, settings=tried, state="done", loss=loss, steps=5))
    return trials


def test_trials_are_chosen_by_what_came_before_and_the_same_past_gives_the_same_next() -> None:
    trials = past(20)
    assert trials == past(20)
    assert trials[0].settings == {"learning_rate": 0.5, "alpha": 8}
    assert all(0.01 <= trial.settings["learning_rate"] <= 1 for trial in trials)
    assert all(isinstance(trial.settings["alpha"], int) for trial in trials)
    early, late = trials[1:5], trials[-5:]
    assert sum(trial.loss or 0 for trial in late) < 0.6 * sum(trial.loss or 0 for trial in early)
    assert importance(SPACE, trials)["learning_rate"] > 0.7
    assert importance(SPACE, trials[:7]) == {}


def test_a_small_space_is_tried_through_without_repeats() -> None:
    small = read_space("rank=2|4,warmup_steps=1..3", Settings(), charged=True)
    assert count(small) == 6 and count(SPACE) is None
    trials: list[Trial] = []
    for number in range(1, 7):
        tried = suggest(small, trials, first=None, seed=2**31)
        assert holds(small, tried) and tried not in [trial.settings for trial in trials]
        trials.append(Trial(number=number, settings=tried, state="done", loss=float(number), steps=1))
    assert not holds(small, {"rank": 2}) and not holds(small, {"rank": 2, "warmup_steps": True})


def test_all_layers_are_more_than_any_number_of_them() -> None:
    assert largest(read_space("layers=0|1|2", Settings(), charged=True), Settings()).layers == 0
    assert largest(read_space("layers=1|2", Settings(), charged=True), Settings()).layers == 2


def test_the_best_is_the_lowest_loss_of_those_that_have_one() -> None:
    trials = past(5)
    failed = Trial(number=6, settings=trials[0].settings, state="failed", why="No.")
    best = best_of([*trials, failed])
    assert best is not None and best.loss == min(trial.loss or 9 for trial in trials)
    assert best_of([failed]) is None
    assert suggest(SPACE, [*trials, failed], first=None, seed=3), "a failed trial is no obstacle"
