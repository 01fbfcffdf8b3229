from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.sparse import csr_matrix
from scipy.stats import norm

from appliance.core.errors import DataRejected, PrivacyRefused
from appliance.evaluate.baseline import (
    LinearSettings,
    dp_linear,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_noise_for,
    majority,
    public_idf,
    tfidf_logistic,
    unit_factors,
    unit_pairs,
)
from appliance.privacy import noise
from appliance.privacy.accountant import Steps, epsilon

WORDS = ("invoice", "refund", "ward", "surgery", "vaccine", "parking")


def letters(count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Messages that name their topic among noise; units of one to four messages."""
    random = np.random.default_rng(seed)
    answers = random.integers(0, len(WORDS), count)
    filler = [f"word{number}" for number in range(40)]
    texts = [" ".join([*random.choice(filler, 5), WORDS[answer]]) for answer in answers]
    return texts, answers, np.sort(random.integers(0, count // 2, count))


def clipped_sum(inputs: csr_matrix, errors: np.ndarray, units: np.ndarray, limit: float) -> np.ndarray:
    factors = unit_factors(unit_pairs(inputs, units), errors, units, limit)
    return np.asarray(inputs.T @ (factors[:, None] * errors))


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("eps", [0.2, 1.0, 4.0])
def test_delta_is_the_hockey_stick_divergence(mu: float, eps: float) -> None:
    def gap(x: float) -> float:
        return max(0.0, float(norm.pdf(x, mu) - math.exp(eps) * norm.pdf(x, 0)))

    crossing = mu / 2 + eps / mu
    assert gaussian_delta(eps, mu) == pytest.approx(quad(gap, crossing, crossing + 12)[0], abs=1e-9)


def test_epsilon_agrees_with_the_products_accountant_at_full_batch() -> None:
    steps, noise_multiplier, delta = 60, 4.4, 1e-5
    ours = gaussian_epsilon(noise_multiplier, delta=delta, steps=steps)
    with np.errstate(divide="ignore"):  # Opacus takes log(1 - rate)
        theirs = epsilon([Steps(noise_multiplier=noise_multiplier, sample_rate=1.0, steps=steps)], delta)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours <= theirs  # theirs is an upper bound


def test_noise_is_the_least_that_keeps_the_promise() -> None:
    sigma = gaussian_noise_for(8.0, delta=1e-5, steps=60)
    assert gaussian_epsilon(sigma, delta=1e-5, steps=60) <= 8.0 + 2e-6
    assert gaussian_epsilon(sigma * 0.999, delta=1e-5, steps=60) > 8.0
    for wrong in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(PrivacyRefused):
            gaussian_noise_for(wrong[0], delta=wrong[1], steps=60)


def test_a_unit_weighs_at_most_the_limit_whatever_it_holds() -> None:
    random = np.random.default_rng(0)
    units = np.array([0, 1, 1, 2, 2, 2, 0])
    inputs = csr_matrix(random.normal(size=(7, 10)) * (random.random((7, 10)) < 0.5))
    errors = random.normal(size=(7, 3))
    limit = 0.9
    dense = np.asarray(inputs.todense())
    expected = np.zeros((10, 3))
    for unit in range(3):
        mine = units == unit
        mean = np.einsum("rf,rc->fc", dense[mine], errors[mine]) / mine.sum()
        expected += mean * min(1.0, limit / np.linalg.norm(mean))
    whole = clipped_sum(inputs, errors, units, limit)
    assert whole == pytest.approx(expected, abs=1e-7)
    # Without one unit, with all of its records, the sum moves by the limit at most.
    for unit in range(3):
        kept = units != unit
        _, rest = np.unique(units[kept], return_inverse=True)
        without = clipped_sum(inputs[kept], errors[kept], rest, limit)
        assert np.linalg.norm(whole - without) <= limit


def test_it_learns_under_a_real_budget_and_not_under_a_tiny_one() -> None:
    texts, answers, units = letters(1200, 1)
    asked, truth, _ = letters(300, 2)
    count = len(np.unique(units))
    shares = {}
    for budget in (8.0, 0.01):
        predict, privacy = dp_linear(
            texts, answers, units, 6, epsilon=budget, delta=1 / (10 * count), declared_units=count
        )
        shares[budget] = float((predict(asked) == truth).mean())
        assert privacy.epsilon == pytest.approx(budget, abs=1e-4)
    assert shares[8.0] > 0.8 and shares[0.01] < 0.5


def test_every_step_draws_noise_for_the_clipping_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, float]] = []
    monkeypatch.setattr(
        noise, "gaussian", lambda count, sigma: drawn.append((count, sigma)) or np.zeros(count)
    )
    texts, answers, units = letters(60, 3)
    settings = LinearSettings(features=64, steps=5, max_grad_norm=0.7)
    _, privacy = dp_linear(
        texts, answers, units, 6, epsilon=4.0, delta=1e-4, declared_units=30, settings=settings
    )
    assert drawn == [(65 * 6, privacy.noise_multiplier * 0.7)] * 5


def test_a_unit_with_very_many_records_gives_only_its_first() -> None:
    texts, answers, _ = letters(400, 4)
    settings = LinearSettings(records_per_unit=10)
    predict, _ = dp_linear(
        texts,
        answers,
        np.zeros(400, np.int64),
        6,
        epsilon=8.0,
        delta=1e-3,
        declared_units=100,
        settings=settings,
    )
    assert predict(texts[:3]).shape == (3,)


def test_refuses_what_it_cannot_promise() -> None:
    texts, answers, units = letters(50, 5)
    with pytest.raises(PrivacyRefused):
        dp_linear(texts, answers, units, 6, epsilon=8.0, delta=0.1, declared_units=50)
    with pytest.raises(DataRejected):
        dp_linear(texts[1:], answers, units, 6, epsilon=8.0, delta=1e-4, declared_units=50)
    with pytest.raises(DataRejected):
        majority(np.zeros(0, np.int64))


def test_yardsticks_without_privacy() -> None:
    texts, answers, _ = letters(600, 6)
    asked, truth, _ = letters(200, 7)
    assert (tfidf_logistic(texts, answers)(asked) == truth).mean() > 0.95
    assert majority(np.array([2, 0, 2, 1])) == 2
    idf = public_idf(["the ward", "the invoice", "the the"], 32)
    assert idf.shape == (32,) and idf.min() < idf.max()
