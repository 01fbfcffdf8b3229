from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.errors import ConfigWrong
from appliance.serve.significance import Share, compare, difference_interval, fisher, needed, wilson

counts = st.integers(0, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


@given(counts, counts)
@settings(max_examples=200, deadline=None)
def test_fisher_is_scipys(first: tuple[int, int], second: tuple[int, int]) -> None:
    from scipy.stats import fisher_exact

    a, b = Share(hits=first[0], of=first[1]), Share(hits=second[0], of=second[1])
    table = [[a.hits, a.of - a.hits], [b.hits, b.of - b.hits]]
    assert fisher(a, b) == pytest.approx(float(fisher_exact(table).pvalue), rel=1e-9)


def test_fisher_with_many_answers_is_scipys() -> None:
    from scipy.stats import fisher_exact

    a, b = Share(hits=40210, of=80000), Share(hits=50700, of=100000)
    expected = float(fisher_exact([[40210, 39790], [50700, 49300]]).pvalue)
    assert fisher(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("hits", "of"), [(0, 7), (3, 10), (81, 263), (50, 50)])
def test_wilson_is_scipys(hits: int, of: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    assert wilson(Share(hits=hits, of=of)) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("b", "a", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_the_interval_of_the_difference_is_newcombes(
    b: tuple[int, int], a: tuple[int, int], low: float, high: float
) -> None:
    """Of table II of Newcombe 1998, method 10."""
    found = difference_interval(Share(hits=a[0], of=a[1]), Share(hits=b[0], of=b[1]))
    assert found == pytest.approx((low, high), abs=6e-5)


def test_as_many_answers_as_the_book_says_give_the_power() -> None:
    """Simulated: with `needed` answers a side, a difference of that size is found 4 times out of 5."""
    size = needed(0.6, 0.15)
    assert size == 173  # to 0.45; up to 0.75 it takes 152
    draw = np.random.default_rng(1)
    found = [
        fisher(
            Share(hits=int(draw.binomial(size, 0.6)), of=size),
            Share(hits=int(draw.binomial(size, 0.45)), of=size),
        )
        < 0.05
        for _ in range(400)
    ]
    assert 0.72 < np.mean(found) < 0.86


def test_no_verdict_before_enough_answers_and_how_many_are_missing() -> None:
    few = compare(Share(hits=5, of=10), Share(hits=10, of=10), difference=0.2)
    assert few.p is not None and few.p < 0.05  # the test alone would have spoken
    assert few.verdict == f"not enough answers yet: {few.missing_a} more for A, {few.missing_b} more for B"
    assert few.missing_a == few.needed - 10
    nothing = compare(Share(hits=0, of=0), Share(hits=0, of=0))
    assert nothing.p is None and nothing.missing_a == needed(0.5, 0.1)


@pytest.mark.parametrize(
    ("a", "b", "better", "verdict"),
    [
        (300, 400, "more", "B is better"),
        (400, 300, "more", "A is better"),
        (300, 400, "fewer", "A is better"),
        (350, 352, "more", "no difference of 10 points or more was seen"),
    ],
)
def test_the_verdict_with_enough_answers(a: int, b: int, better: str, verdict: str) -> None:
    found = compare(Share(hits=a, of=600), Share(hits=b, of=600), better=better)
    assert (found.missing_a, found.missing_b) == (0, 0) and found.verdict == verdict


def test_a_verdict_without_a_difference_is_rarely_given() -> None:
    """Looked at once, at the settled number of answers: at most 5 of 100 splits of equal models."""
    draw, size = np.random.default_rng(2), needed(0.7, 0.1)
    said = [
        "better"
        in compare(
            Share(hits=int(draw.binomial(size, 0.7)), of=size),
            Share(hits=int(draw.binomial(size, 0.7)), of=size),
        ).verdict
        for _ in range(400)
    ]
    assert np.mean(said) < 0.07


@pytest.mark.parametrize("difference", [0.0, 1.0, -0.1])
def test_a_difference_that_cannot_be_seen_is_refused(difference: float) -> None:
    with pytest.raises(ConfigWrong):
        needed(0.5, difference)
