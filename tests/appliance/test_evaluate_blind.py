"""Blind comparisons: the maths against scipy, the sides by chance, and what is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.evaluate import blind
from appliance.evaluate.blind import SAME, TIE, A, B, Comparison


def begun(home: Home, pairs: int = 10, rows: int = 100) -> Comparison:
    return blind.begun(
        home, who="mira", dataset="d@1", split="test", models=("one", "two"), rows=rows, pairs=pairs
    )


@pytest.mark.parametrize(("wins", "of"), [(0, 0), (0, 5), (5, 5), (7, 20), (31, 43), (250, 431)])
def test_the_test_and_the_interval_are_scipys(wins: int, of: int) -> None:
    if of == 0:
        assert blind.interval(0, 0) == (0.0, 1.0) and blind.sign_test(0, 0) == 1.0
        return
    known = binomtest(wins, of)
    low, high = known.proportion_ci(0.95, "exact")
    assert blind.sign_test(wins, of) == pytest.approx(known.pvalue)
    assert blind.interval(wins, of) == pytest.approx((low, high), abs=1e-9)


def test_sides_change_by_chance_and_choices_go_to_the_model_behind_them(home: Home) -> None:
    one = begun(home, pairs=400, rows=400)
    first = Counter(blind.sides(one, pair)[0] for pair in range(400))
    assert 140 < first["one"] < 260 and first["one"] + first["two"] == 400
    always_one = tuple(A if blind.sides(one, pair)[0] == "one" else B for pair in range(400))
    found = blind.result(replace(one, choices=always_one))
    assert found["counts"] == {"one": 400, "two": 0, TIE: 0} and found["share"] == 1.0 and found["p"] < 1e-9
    ties = blind.result(replace(one, choices=(TIE, SAME) * 200))
    assert ties["counts"][TIE] == 400 and ties["share"] is None and ties["p"] == 1.0


def test_it_is_kept_at_every_choice_and_nothing_of_the_records(home: Home) -> None:
    one = begun(home, pairs=3)
    assert len(set(one.records)) == 3 and begun(home).id == "0002"
    two = blind.chosen(home, one, A)
    assert blind.get(home, "1").choices == (A,)
    with pytest.raises(ConfigWrong):
        blind.chosen(home, one, B)  # another terminal was first
    assert blind.get(home, "0001") == two and not two.done
    assert blind.chosen(home, blind.chosen(home, two, B), TIE).done
    assert [it.id for it in blind.kept(home)] == ["0002", "0001"]


def test_what_cannot_be_compared_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        blind.get(home, "7")
    with pytest.raises(ConfigWrong):
        begun(home, rows=0)
    with pytest.raises(ConfigWrong):
        blind.begun(home, who="m", dataset="d@1", split="test", models=("a", "a"), rows=9, pairs=3)
