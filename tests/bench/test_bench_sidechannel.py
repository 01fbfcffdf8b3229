"""The figure that says whether times tell something: known areas, ties, and how wide its interval is."""

from __future__ import annotations

import random

import pytest

from bench.sidechannel import auc


def test_the_area_is_the_chance_to_be_sooner() -> None:
    assert auc([1, 2, 3], [4, 5, 6]) == (1.0, 1.0, 1.0)
    assert auc([4, 5, 6], [1, 2, 3])[0] == 0.0
    assert auc([1, 1], [1, 1])[0] == 0.5
    assert auc([1, 3], [2, 4])[0] == 0.75  # of four pairs three


def test_the_interval_holds_what_it_says() -> None:
    """Of 300 draws from normals one standard deviation apart (area 0.7602) about 95 in 100 hold it."""
    draw, held = random.Random(0), 0
    for _ in range(300):
        same = [draw.gauss(0, 1) for _ in range(60)]
        others = [draw.gauss(1, 1) for _ in range(80)]
        _, low, high = auc(same, others)
        held += low <= 0.7602 <= high
    assert 0.91 <= held / 300 <= 0.98


def test_nothing_to_see_is_a_half() -> None:
    draw = random.Random(1)
    area, low, high = auc([draw.random() for _ in range(200)], [draw.random() for _ in range(200)])
    assert low < 0.5 < high and high - low == pytest.approx(0.113, abs=0.01) and 0.4 < area < 0.6
