from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from appliance.core.errors import ConfigWrong
from appliance.evaluate.compare import (
    between,
    clusters_of,
    macro_f1_interval,
    mcnemar,
    paired_perplexity,
    paired_share,
    perplexity_interval,
    resampled_sums,
    share_interval,
)


def clustered(random: np.random.Generator, patients: int, mean: float) -> tuple[NDArray, NDArray]:
    """Rows of patients who are easy or hard as a whole: one to eight rows each."""
    sizes = random.integers(1, 9, patients)
    clusters = np.repeat(np.arange(patients), sizes)
    ease = random.beta(0.5 * mean, 0.5 * (1 - mean), patients)
    return random.random(sizes.sum()) < ease[clusters], clusters


def test_interval_covers_the_truth_on_clustered_rows_and_row_resampling_does_not() -> None:
    random = np.random.default_rng(11)
    held = {"patients": 0, "rows": 0}
    trials = 200
    for _ in range(trials):
        hits, clusters = clustered(random, 120, 0.7)
        for name, by in (("patients", clusters), ("rows", np.arange(len(hits)))):
            interval = share_interval(hits, by)
            held[name] += interval.low <= 0.7 <= interval.high
    assert 0.90 <= held["patients"] / trials <= 0.99
    assert held["rows"] / trials < 0.80


def test_paired_interval_covers_the_true_difference() -> None:
    random = np.random.default_rng(12)
    held, trials = 0, 200
    for _ in range(trials):
        base, clusters = clustered(random, 120, 0.5)
        tuned = base | (random.random(len(base)) < 0.3)  # adds 0.3 of the half that was wrong
        pair = paired_share(base, tuned, clusters)
        held += pair.difference.low <= 0.15 <= pair.difference.high
    assert 0.90 <= held / trials <= 0.99


def test_the_same_data_give_the_same_interval_whatever_fits_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hits, clusters = clustered(np.random.default_rng(1), 64, 0.6)
    whole = share_interval(hits, clusters)
    monkeypatch.setattr("appliance.evaluate.compare._CELLS", 64 * 500)
    assert share_interval(hits, clusters) == whole


def test_sums_are_of_whole_clusters() -> None:
    columns = np.array([[1.0], [10.0], [100.0]])
    sums = resampled_sums(columns, np.array([0, 0, 1]), resamples=200)
    assert set(sums.ravel()) == {22.0, 111.0, 200.0}


def test_rows_that_all_agree_get_the_exact_binomial_end() -> None:
    every = share_interval(np.ones(40, bool), np.arange(40))
    none = share_interval(np.zeros(40, bool), np.arange(40))
    exact = binomtest(40, 40).proportion_ci(method="exact")
    assert (every.low, every.high) == pytest.approx((exact.low, 1.0))
    assert (none.low, none.high) == pytest.approx((0.0, 1 - exact.low))
    # 40 rows of 4 patients say less than 40 patients.
    assert share_interval(np.ones(40, bool), np.repeat(np.arange(4), 10)).low < 0.5


def test_relative_change_from_nothing_is_infinite_and_json_says_none() -> None:
    base, tuned = np.zeros(50, bool), np.ones(50, bool)
    pair = paired_share(base, tuned, np.arange(50))
    assert pair.relative.value == math.inf
    assert pair.relative.as_dict() == {"value": None, "low": None, "high": None}
    assert paired_share(base, base, np.arange(50)).relative.value == 0.0


def test_paired_interval_is_narrower_than_two_single_ones() -> None:
    hits, clusters = clustered(np.random.default_rng(5), 200, 0.6)
    tuned = hits.copy()
    tuned[:10] = ~tuned[:10]
    pair, alone = paired_share(hits, tuned, clusters), share_interval(hits, clusters)
    assert pair.difference.high - pair.difference.low < (alone.high - alone.low) / 2


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (3, 9), (40, 22), (900, 1400)])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    base = np.array([False] * wins + [True] * losses + [True] * 7)
    tuned = np.array([True] * wins + [False] * losses + [True] * 7)
    found = mcnemar(base, tuned)
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found[:2] == (wins, losses)
    assert found[2] == pytest.approx(expected, rel=1e-9)


def test_perplexity_intervals() -> None:
    random = np.random.default_rng(2)
    tokens = random.integers(2, 20, 300)
    nll = tokens * random.normal(2.0, 0.3, 300)
    found = perplexity_interval(nll, tokens, np.arange(300))
    assert found.value == pytest.approx(math.exp(nll.sum() / tokens.sum()))
    assert found.low < found.value < found.high
    pair = paired_perplexity(nll, nll - 0.5 * tokens, tokens, np.arange(300))
    # Half a nat less on every row: the change is the same in every draw.
    assert (pair.relative.low, pair.relative.high) == pytest.approx([math.exp(-0.5) - 1] * 2)


def test_a_thousand_rows_take_less_than_half_a_second() -> None:
    random = np.random.default_rng(9)
    gold, clusters = random.integers(0, 12, 1000), np.arange(1000)
    predicted = np.where(random.random(1000) < 0.8, gold, 0)
    share_interval(gold == predicted, clusters)
    start = time.process_time()
    share_interval(gold == predicted, clusters)
    paired_share(gold == predicted, gold == 0, clusters)
    macro_f1_interval(gold, predicted, 12, clusters)
    assert time.process_time() - start < 0.5


def test_rows_without_a_unit_are_their_own_clusters() -> None:
    assert clusters_of(["a", None, "a", None, "b"]).tolist() == [0, 1, 0, 2, 3]


def test_refuses_rows_that_do_not_pair() -> None:
    with pytest.raises(ConfigWrong):
        paired_share(np.ones(3, bool), np.ones(4, bool), np.arange(3))
    with pytest.raises(ConfigWrong):
        mcnemar(np.ones(0, bool), np.ones(0, bool))
    with pytest.raises(ConfigWrong):
        resampled_sums(np.zeros((0, 1)), np.zeros(0, np.int64))
    with pytest.raises(ConfigWrong):
        paired_perplexity(np.ones(2), np.ones(2), np.zeros(2, np.int64), np.arange(2))


def test_ends_stand_on_drawn_values() -> None:
    draws = np.array([0.0, 1.0, 2.0, math.inf])
    found = between(1.0, draws)
    assert (found.low, found.high) == (0.0, math.inf)
